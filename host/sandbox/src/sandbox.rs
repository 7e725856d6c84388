//! The sandbox itself: one engine, what guests may import, and the modules that are loaded.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use maitred_protocol::{Digest, ModuleKind, UploadStage};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::callback::{CallbackModule, CallbackModulePre};
use crate::bindings::fence::{FenceModule, FenceModulePre};
use crate::bindings::selector::{SelectorModule, SelectorModulePre};
use crate::cache::Cache;
use crate::compile::{Compiler, CompilerCommand};
use crate::engine;
use crate::error::{ModuleError, SandboxError, Stage};
use crate::guest::Guest;
use crate::limits::Limits;
use crate::scan;

/// What a sandbox is made from.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// What guests may use.
    pub limits: Limits,
    /// Where machine code is kept. Nobody but this user may be able to write there.
    pub cache_dir: PathBuf,
    /// How to start the compiler's process.
    pub compiler: CompilerCommand,
}

/// Runs guests. Dropping the last reference ends its clock.
pub struct Sandbox {
    pub(crate) limits: Arc<Limits>,
    engine: Engine,
    compiler: Compiler,
    cache: Cache,
    selectors: Linker<Guest>,
    callbacks: Linker<Guest>,
    fences: Linker<Guest>,
    loaded: RwLock<HashMap<Digest, Loaded>>,
}

/// A module that is linked and only needs an instance.
#[derive(Clone)]
pub(crate) enum Loaded {
    Selector(SelectorModulePre<Guest>),
    Callback(CallbackModulePre<Guest>),
    Fence(FenceModulePre<Guest>),
}

impl Sandbox {
    /// Sets up the engine, its clock and the directory for machine code.
    ///
    /// # Errors
    /// When the limits contradict each other, or the machine does not give what they need.
    pub fn new(config: SandboxConfig) -> Result<Arc<Self>, SandboxError> {
        let SandboxConfig {
            limits,
            cache_dir,
            compiler,
        } = config;
        limits.check()?;
        let engine = engine::running(&limits)?;
        let cache = Cache::open(
            &cache_dir,
            engine::fingerprint(&engine),
            limits.compile.cache_bytes,
        )?;
        let linked = |error: wasmtime::Error| SandboxError::Engine(format!("{error:#}"));
        let mut selectors = Linker::new(&engine);
        SelectorModule::add_to_linker::<_, HasSelf<_>>(&mut selectors, |guest| guest)
            .map_err(linked)?;
        let mut callbacks = Linker::new(&engine);
        CallbackModule::add_to_linker::<_, HasSelf<_>>(&mut callbacks, |guest| guest)
            .map_err(linked)?;
        let mut fences = Linker::new(&engine);
        FenceModule::add_to_linker::<_, HasSelf<_>>(&mut fences, |guest| guest).map_err(linked)?;
        // Not waited for: it ends with the engine.
        drop(engine::tick(engine.weak())?);
        let compiler = Compiler::new(compiler, limits.compile.clone());
        Ok(Arc::new(Self {
            limits: Arc::new(limits),
            engine,
            compiler,
            cache,
            selectors,
            callbacks,
            fences,
            loaded: RwLock::default(),
        }))
    }

    /// What guests may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Makes a module ready: from kept machine code in about a millisecond, else by compiling it.
    /// Blocks meanwhile, so call it on a thread that may. Loading what is loaded does nothing.
    ///
    /// # Errors
    /// As for [`Sandbox::inspect`], up to compiling and linking; and when `limits.modules` are
    /// loaded.
    pub fn load(&self, digest: Digest, kind: ModuleKind, bytes: &[u8]) -> Result<(), ModuleError> {
        if self.is_loaded(&digest) {
            return Ok(());
        }
        if Digest::of(bytes) != digest {
            return Err(ModuleError::new(
                Stage::Receiving,
                format!(
                    "its bytes are not those of {}: fetch it again",
                    digest.short()
                ),
            ));
        }
        let ready = self.make(digest, kind, bytes, &mut |_| ())?;
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if loaded.len() >= self.limits.modules && !loaded.contains_key(&digest) {
            let most = self.limits.modules;
            return Err(ModuleError::new(
                Stage::Instantiating,
                format!("{most} modules are loaded already (limit modules): remove unused ones"),
            ));
        }
        loaded.insert(digest, ready);
        Ok(())
    }

    /// Forgets a module. What runs goes on; new instances cannot be made.
    pub fn unload(&self, digest: &Digest) {
        self.loaded
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(digest);
    }

    /// Whether a module can be used.
    #[must_use]
    pub fn is_loaded(&self, digest: &Digest) -> bool {
        self.loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(digest)
    }

    /// The modules that can be used.
    #[must_use]
    pub fn loaded_modules(&self) -> Vec<Digest> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.keys().copied().collect()
    }

    /// Ends the compilation that is under way, and lets none begin any more: for a host that ends.
    pub fn stop_compiling(&self) {
        self.compiler.stop();
    }

    pub(crate) fn loaded(&self, digest: &Digest) -> Option<Loaded> {
        self.loaded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(digest)
            .cloned()
    }

    /// Scans, compiles and links.
    pub(crate) fn make(
        &self,
        digest: Digest,
        kind: ModuleKind,
        bytes: &[u8],
        progress: &mut dyn FnMut(UploadStage),
    ) -> Result<Loaded, ModuleError> {
        progress(UploadStage::Scanning);
        scan::scan(kind, bytes, &self.limits)?;
        progress(UploadStage::Compiling);
        self.link(kind, &self.component(&digest, bytes)?)
    }

    fn component(&self, digest: &Digest, bytes: &[u8]) -> Result<Component, ModuleError> {
        if let Some(code) = self.cache.get(digest) {
            match self.machine_code(&code) {
                Ok(component) => return Ok(component),
                Err(error) => {
                    tracing::warn!(%error, "kept machine code does not fit; compiling again")
                }
            }
        }
        let code = self.compiler.compile(bytes)?;
        if let Err(error) = self.cache.put(digest, &code) {
            // The module works; it is compiled again after a restart.
            tracing::warn!(%error, "machine code could not be kept");
        }
        self.machine_code(&code).map_err(|error| {
            ModuleError::new(
                Stage::Compiling,
                format!("its machine code does not fit this host: {error:#}"),
            )
        })
    }

    #[expect(unsafe_code, reason = "there is no safe way to load machine code")]
    fn machine_code(&self, code: &[u8]) -> wasmtime::Result<Component> {
        // SAFETY: `code` must come unaltered from wasmtime's `precompile_component`. Both callers
        // are in `component` above: one passes what our own compiler's process has just answered,
        // the other what `Cache::get` found to carry the hash, keyed with a secret of this host,
        // that `Cache::put` gave it, and `put` is called with the former only.
        unsafe { Component::deserialize(&self.engine, code) }
    }

    fn link(&self, kind: ModuleKind, component: &Component) -> Result<Loaded, ModuleError> {
        let linked = match kind {
            ModuleKind::Selector => self
                .selectors
                .instantiate_pre(component)
                .and_then(SelectorModulePre::new)
                .map(Loaded::Selector),
            ModuleKind::Callback => self
                .callbacks
                .instantiate_pre(component)
                .and_then(CallbackModulePre::new)
                .map(Loaded::Callback),
            ModuleKind::Fence => self
                .fences
                .instantiate_pre(component)
                .and_then(FenceModulePre::new)
                .map(Loaded::Fence),
        };
        linked.map_err(ModuleError::of_world)
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
