//! Permits by module name: what is done with one module is bounded, and holds up no other module.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashMap;
use maitred_protocol::ModuleName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many permits for each name.
#[derive(Debug)]
pub(crate) struct ByName {
    permits: usize,
    /// Of names that somebody has a permit of, or waits for.
    names: Mutex<HashMap<ModuleName, Weak<Semaphore>>>,
}

impl ByName {
    pub(crate) fn new(permits: usize) -> Self {
        Self {
            permits,
            names: Mutex::default(),
        }
    }

    /// Waits for a permit; whoever came first has it first.
    pub(crate) async fn take(&self, name: &ModuleName) -> OwnedSemaphorePermit {
        let permits = self.of(name);
        permits.acquire_owned().await.expect("nobody closes it")
    }

    fn of(&self, name: &ModuleName) -> Arc<Semaphore> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name).and_then(Weak::upgrade) {
            return known;
        }
        names.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(self.permits));
        names.insert(name.clone(), Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_do_not_wait_for_one_another_and_are_forgotten() {
        let locks = ByName::new(1);
        let [a, b] = ["a", "b"].map(|name| ModuleName::new(name).unwrap());
        let held = locks.take(&a).await;
        let _other = locks.take(&b).await;
        assert_eq!(locks.of(&a).available_permits(), 0);
        drop(held);
        let _held = locks.take(&a).await;
        drop(_other);
        let _third = locks.take(&ModuleName::new("c").unwrap()).await;
        assert_eq!(locks.names.lock().unwrap().len(), 2);
    }
}
