//! The sandbox itself: the modules that are loaded, and what they are made with.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use maitred_protocol::{Digest, ModuleKind, UploadStage};
use maitred_registry::decide::{Choose, ModuleRef, cut};

use crate::callback::{self, CallbackPre};
use crate::compile::{Compiler, CompilerCommand};
use crate::error::{ModuleError, SandboxError, Stage};
use crate::fence::{self, FencePre};
use crate::fiber;
use crate::forge::Forge;
use crate::gate::Gate;
use crate::limits::{Limits, REHEARSALS};
use crate::scan::Scanned;
use crate::selector::{self, Selector, SelectorPre};
use crate::world::Fit;

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
    compiler: Compiler,
    /// None keeps no machine code.
    cache_dir: Option<PathBuf>,
    running: Forge,
    /// Made when it is first needed.
    rehearsing: Mutex<Option<Arc<Forge>>>,
    /// In front of its instances.
    pub(crate) rehearsals: Arc<Gate>,
    loaded: RwLock<HashMap<Digest, Loaded>>,
}

/// A module that is linked and only needs an instance.
#[derive(Clone)]
pub(crate) enum Loaded {
    Selector(SelectorPre),
    Callback(CallbackPre),
    Fence(FencePre),
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
        Self::with(limits, Some(cache_dir), compiler)
    }

    fn with(
        limits: Limits,
        cache_dir: Option<PathBuf>,
        compiler: CompilerCommand,
    ) -> Result<Arc<Self>, SandboxError> {
        limits.check()?;
        let running = Forge::running(&limits, cache_dir.as_deref())?;
        let compiler = Compiler::new(compiler, limits.compile.clone());
        Ok(Arc::new(Self {
            limits: Arc::new(limits),
            compiler,
            cache_dir,
            running,
            rehearsing: Mutex::default(),
            rehearsals: Gate::new(REHEARSALS),
            loaded: RwLock::default(),
        }))
    }

    /// A sandbox for a tool that tries a module or two and serves nobody: it keeps no machine code,
    /// and sets little memory aside. Its limits are the defaults in all that a module is refused or
    /// cut for.
    ///
    /// # Errors
    /// As for [`Sandbox::new`].
    pub fn for_tools(compiler: CompilerCommand) -> Result<Arc<Self>, SandboxError> {
        let limits = Limits {
            callback_instances: 4,
            fence_instances: 4,
            modules: 16,
            ..Limits::default()
        };
        Self::with(limits, None, compiler)
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
        // Before it is compiled, and once more, since others may have come meanwhile.
        let read = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        self.room(&read, &digest)?;
        drop(read);
        let (ready, ..) = self.make(digest, kind, bytes, &mut |_| ())?;
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        self.room(&loaded, &digest)?;
        loaded.insert(digest, ready);
        Ok(())
    }

    /// Whether a further module may be loaded.
    fn room(&self, loaded: &HashMap<Digest, Loaded>, digest: &Digest) -> Result<(), ModuleError> {
        let most = self.limits.modules;
        if loaded.len() < most || loaded.contains_key(digest) {
            return Ok(());
        }
        let reason =
            format!("{most} modules are loaded already (limit modules): remove unused ones");
        Err(ModuleError::new(Stage::Instantiating, reason))
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

    /// Asks a loaded module whether a configuration (JSON text) will do, on an instance of its own
    /// that has it; and whether the module still says what it wants to see then. Blocks for up to
    /// four times `limits.describe_ms`. A module of WIT 0.1 takes every configuration that it can
    /// describe itself with.
    ///
    /// # Errors
    /// What the module says is wrong with it; or the module is not loaded, or failed itself.
    pub fn validate(&self, digest: &Digest, config: &str) -> Result<(), ModuleError> {
        let loaded = self.loaded(digest).ok_or_else(|| {
            let reason = format!("{} is not loaded on this host", digest.short());
            ModuleError::new(Stage::Validating, reason)
        })?;
        validate(&loaded, &self.limits, config)?
            .map_err(|reason| ModuleError::new(Stage::Validating, reason))
    }

    /// An instance of a loaded selector or scanner that has its configuration, for a caller that
    /// decides on a thread of its own, as a lane does. After a failed call it is not to be asked again.
    /// Blocks for up to twice `limits.describe_ms`.
    ///
    /// # Errors
    /// When no such module is loaded, or it fails while it starts or describes itself.
    pub fn selector(&self, module: &ModuleRef) -> Result<impl Choose + use<>, ModuleError> {
        let Some(Loaded::Selector(pre)) = self.loaded(&module.digest) else {
            let reason = format!(
                "{} is no selector that is loaded here",
                module.digest.short()
            );
            return Err(ModuleError::new(Stage::Instantiating, reason));
        };
        let (name, config) = (module.name.as_str().into(), Arc::clone(&module.config));
        Selector::new(&pre, &self.limits, name, config)
    }

    /// Scans, compiles and links, for decisions.
    pub(crate) fn make(
        &self,
        digest: Digest,
        kind: ModuleKind,
        bytes: &[u8],
        progress: &mut dyn FnMut(UploadStage),
    ) -> Result<(Loaded, Fit, Scanned), ModuleError> {
        let module = (digest, kind, bytes);
        self.running
            .make(module, &self.limits, &self.compiler, progress)
    }

    /// The same, for rehearsals.
    pub(crate) fn make_rehearsed(
        &self,
        digest: Digest,
        kind: ModuleKind,
        bytes: &[u8],
    ) -> Result<Loaded, ModuleError> {
        let forge = self.rehearsing().map_err(|error| {
            let reason = format!("rehearsals cannot be set up: {error}");
            ModuleError::new(Stage::Compiling, reason)
        })?;
        let module = (digest, kind, bytes);
        let made = forge.make(module, &self.limits, &self.compiler, &mut |_| ());
        made.map(|(module, ..)| module)
    }

    fn rehearsing(&self) -> Result<Arc<Forge>, SandboxError> {
        let mut made = self
            .rehearsing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(forge) = &*made {
            return Ok(Arc::clone(forge));
        }
        let forge = Forge::rehearsing(&self.limits, self.cache_dir.as_deref())?;
        Ok(Arc::clone(made.insert(Arc::new(forge))))
    }
}

/// See [`Sandbox::validate`].
pub(crate) fn validate(
    module: &Loaded,
    limits: &Arc<Limits>,
    config: &str,
) -> Result<Result<(), String>, ModuleError> {
    let (name, config): (Arc<str>, Arc<str>) = ("".into(), config.into());
    let judged = match module {
        Loaded::Selector(module) => selector::validate(module, limits, Arc::clone(&name), &config),
        Loaded::Callback(module) => fiber::block_on(
            Stage::Validating,
            fiber::validate::<callback::Exports>(module, limits, Arc::clone(&name), &config),
        ),
        Loaded::Fence(module) => fiber::block_on(
            Stage::Validating,
            fiber::validate::<fence::Exports>(module, limits, Arc::clone(&name), &config),
        ),
    };
    if let Err(reason) = judged? {
        return Ok(Err(cut(reason)));
    }
    // It may ask for other features then.
    let described = match module {
        Loaded::Selector(module) => Selector::new(module, limits, name, config).map(drop),
        Loaded::Callback(module) => {
            let made = fiber::Instance::<callback::Exports>::new(module, limits, name, config);
            fiber::block_on(Stage::Validating, made).map(drop)
        }
        Loaded::Fence(module) => {
            let made = fiber::Instance::<fence::Exports>::new(module, limits, name, config);
            fiber::block_on(Stage::Validating, made).map(drop)
        }
    };
    described.map(Ok)
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
