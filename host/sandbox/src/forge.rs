//! What makes modules runnable on one engine: its machine code, from the cache or from the
//! compiler's process, and the imports that it is linked to. There is one for decisions, and one that
//! counts fuel, for rehearsals.

use std::path::Path;

use maitred_protocol::{Digest, ModuleKind, UploadStage};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::bindings::callback::{CallbackModule, CallbackModulePre};
use crate::bindings::fence::{FenceModule, FenceModulePre};
use crate::bindings::scanner::ScannerModulePre;
use crate::bindings::scanner::maitred::policy::nodes;
use crate::bindings::selector::{SelectorModule, SelectorModulePre};
use crate::cache::Cache;
use crate::callback::CallbackPre;
use crate::compile::Compiler;
use crate::engine;
use crate::error::Stage;
use crate::error::{ModuleError, SandboxError};
use crate::fence::FencePre;
use crate::guest::Guest;
use crate::limits::Limits;
use crate::sandbox::Loaded;
use crate::scan::{self, Scanned};
use crate::selector::SelectorPre;
use crate::v0_1;
use crate::world::{Abi, Fit, Interface};

/// See the head of this file.
pub(crate) struct Forge {
    engine: Engine,
    metered: bool,
    /// None keeps nothing.
    cache: Option<Cache>,
    selectors: Linker<Guest>,
    callbacks: Linker<Guest>,
    fences: Linker<Guest>,
}

impl Forge {
    /// For decisions.
    pub(crate) fn running(limits: &Limits, cache: Option<&Path>) -> Result<Self, SandboxError> {
        Self::new(engine::running(limits)?, false, limits, cache)
    }

    /// For rehearsals.
    pub(crate) fn rehearsing(limits: &Limits, cache: Option<&Path>) -> Result<Self, SandboxError> {
        Self::new(engine::rehearsing(limits)?, true, limits, cache)
    }

    fn new(
        engine: Engine,
        metered: bool,
        limits: &Limits,
        cache: Option<&Path>,
    ) -> Result<Self, SandboxError> {
        let open = |dir| {
            Cache::open(
                dir,
                engine::fingerprint(&engine),
                limits.compile.cache_bytes,
            )
        };
        let cache = cache.map(open).transpose()?;
        let linked = |error: wasmtime::Error| SandboxError::Engine(format!("{error:#}"));
        let selectors = selectors(&engine).map_err(linked)?;
        let callbacks = callbacks(&engine).map_err(linked)?;
        let fences = fences(&engine).map_err(linked)?;
        // Not waited for: it ends with the engine.
        drop(engine::tick(engine.weak())?);
        Ok(Self {
            engine,
            metered,
            cache,
            selectors,
            callbacks,
            fences,
        })
    }

    /// Scans, compiles and links.
    pub(crate) fn make(
        &self,
        (digest, kind, bytes): (Digest, ModuleKind, &[u8]),
        limits: &Limits,
        compiler: &Compiler,
        progress: &mut dyn FnMut(UploadStage),
    ) -> Result<(Loaded, Fit, Scanned), ModuleError> {
        progress(UploadStage::Scanning);
        let (fit, scanned) = scan::scan(kind, bytes, limits)?;
        progress(UploadStage::Compiling);
        let component = self.component(&digest, bytes, compiler)?;
        let linked = self.link(&fit, &component);
        Ok((linked.map_err(ModuleError::of_world)?, fit, scanned))
    }

    fn component(
        &self,
        digest: &Digest,
        bytes: &[u8],
        compiler: &Compiler,
    ) -> Result<Component, ModuleError> {
        if let Some(code) = self.cache.as_ref().and_then(|cache| cache.get(digest)) {
            match self.machine_code(&code) {
                Ok(component) => return Ok(component),
                Err(error) => {
                    tracing::warn!(%error, "kept machine code does not fit; compiling again")
                }
            }
        }
        let code = compiler.compile(bytes, self.metered)?;
        let kept = self.cache.as_ref().map(|cache| cache.put(digest, &code));
        if let Some(Err(error)) = kept {
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

    fn link(&self, fit: &Fit, component: &Component) -> wasmtime::Result<Loaded> {
        let linker = match fit.interface {
            Interface::Selector | Interface::Scanner => &self.selectors,
            Interface::Callback => &self.callbacks,
            Interface::Fence => &self.fences,
        };
        let pre = linker.instantiate_pre(component)?;
        let old = fit.abi == Abi::V0_1;
        Ok(match fit.interface {
            Interface::Selector if old => {
                Loaded::Selector(SelectorPre::Old(v0_1::SelectorModulePre::new(pre)?))
            }
            Interface::Selector => {
                Loaded::Selector(SelectorPre::Selector(SelectorModulePre::new(pre)?))
            }
            Interface::Scanner => {
                Loaded::Selector(SelectorPre::Scanner(ScannerModulePre::new(pre)?))
            }
            Interface::Callback if old => {
                Loaded::Callback(CallbackPre::Old(v0_1::CallbackModulePre::new(pre)?))
            }
            Interface::Callback => {
                Loaded::Callback(CallbackPre::Callback(CallbackModulePre::new(pre)?))
            }
            Interface::Fence if old => {
                Loaded::Fence(FencePre::Old(v0_1::FenceModulePre::new(pre)?))
            }
            Interface::Fence => Loaded::Fence(FencePre::Fence(FenceModulePre::new(pre)?)),
        })
    }
}

/// What selectors and scanners may import; which of it, `world` has checked.
fn selectors(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    SelectorModule::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    nodes::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    v0_1::link_selectors(&mut linker)?;
    Ok(linker)
}

fn callbacks(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    CallbackModule::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    v0_1::link_callbacks(&mut linker)?;
    Ok(linker)
}

fn fences(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    FenceModule::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    v0_1::link_fences(&mut linker)?;
    Ok(linker)
}
