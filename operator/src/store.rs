//! What a watch shows, kept as records: of an object nothing stays but what somebody here reads.
//!
//! kube's own store keeps whole objects, each under a name that holds its kind's five texts once more; with six objects an
//! agent that is most of a program's memory. As there, a list replaces everything only once it is whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kube::Resource;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::lock::lock;

/// By namespace and name.
type Records<T> = BTreeMap<Box<str>, BTreeMap<Box<str>, Arc<T>>>;

/// The records of one kind, for those who read them.
#[derive(Debug)]
pub(crate) struct Store<T> {
    records: Arc<Mutex<Records<T>>>,
    whole: watch::Receiver<bool>,
}

/// The one who keeps them current.
#[derive(Debug)]
pub(crate) struct Writer<T> {
    records: Arc<Mutex<Records<T>>>,
    /// Of the list that is coming in.
    coming: Records<T>,
    whole: watch::Sender<bool>,
}

/// A store of nothing, and who fills it.
pub(crate) fn store<T>() -> (Store<T>, Writer<T>) {
    let records: Arc<Mutex<Records<T>>> = Arc::default();
    let (sender, whole) = watch::channel(false);
    let writer = Writer { records: Arc::clone(&records), coming: Records::new(), whole: sender };
    (Store { records, whole }, writer)
}

impl<T> Store<T> {
    /// Waits for the first whole list.
    pub(crate) async fn warm(&self) {
        // A writer that is dropped means that the program ends.
        let _ = self.whole.clone().wait_for(|whole| *whole).await;
    }

    /// One record.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        lock(&self.records).get(namespace)?.get(name).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        lock(&self.records).values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// All of them, each with its namespace.
    pub(crate) fn all_placed(&self) -> Vec<(Box<str>, Arc<T>)> {
        let records = lock(&self.records);
        let all = records.iter().flat_map(|(namespace, there)| {
            there.values().map(|record| (namespace.clone(), Arc::clone(record)))
        });
        all.collect()
    }

    /// Those of a namespace that are wanted.
    pub(crate) fn some(&self, namespace: &str, is_wanted: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let records = lock(&self.records);
        let all = records.get(namespace).into_iter().flat_map(BTreeMap::values);
        all.filter(|record| is_wanted(record)).cloned().collect()
    }
}

impl<T> Writer<T> {
    /// Takes in what the watch shows; `keep` makes a record of an object.
    pub(crate) fn take<K: Resource>(&mut self, event: Event<K>, keep: impl Fn(K) -> T) {
        match event {
            Event::Init => self.coming = Records::new(),
            Event::InitApply(object) => insert(&mut self.coming, object, keep),
            Event::InitDone => {
                // What was there before is dropped after the lock.
                let coming = std::mem::take(&mut self.coming);
                drop(std::mem::replace(&mut *lock(&self.records), coming));
                self.whole.send_replace(true);
            }
            Event::Apply(object) => insert(&mut lock(&self.records), object, keep),
            Event::Delete(object) => {
                let (namespace, name) = place(&object);
                let mut records = lock(&self.records);
                if let Some(there) = records.get_mut(&namespace) {
                    there.remove(&name);
                    if there.is_empty() {
                        records.remove(&namespace);
                    }
                }
            }
        }
    }
}

fn insert<K: Resource, T>(records: &mut Records<T>, object: K, keep: impl Fn(K) -> T) {
    let (namespace, name) = place(&object);
    records.entry(namespace).or_default().insert(name, Arc::new(keep(object)));
}

fn place(object: &impl Resource) -> (Box<str>, Box<str>) {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
    (text(&object.meta().namespace), text(&object.meta().name))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn named(namespace: &str, name: &str, version: &str) -> ConfigMap {
        let metadata = json!({"namespace": namespace, "name": name, "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    /// Its records are resourceVersions.
    fn take(writer: &mut Writer<String>, event: Event<ConfigMap>) {
        writer.take(event, |object| object.metadata.resource_version.unwrap());
    }

    fn all(store: &Store<String>) -> Vec<String> {
        store.all().iter().map(|record| (**record).clone()).collect()
    }

    #[tokio::test]
    async fn a_list_counts_once_it_is_whole_and_then_nothing_else_does() {
        let (store, mut writer) = store();
        assert!(!*store.whole.borrow());
        take(&mut writer, Event::Init);
        take(&mut writer, Event::InitApply(named("a", "x", "1")));
        assert_eq!(all(&store), [""; 0]);
        take(&mut writer, Event::InitApply(named("b", "x", "2")));
        take(&mut writer, Event::InitDone);
        store.warm().await;
        assert_eq!(all(&store), ["1", "2"]);
        // A list that breaks off is begun anew; what was there stays until one is whole.
        take(&mut writer, Event::Init);
        take(&mut writer, Event::InitApply(named("a", "gone", "3")));
        take(&mut writer, Event::Init);
        take(&mut writer, Event::InitApply(named("a", "y", "4")));
        assert_eq!(all(&store), ["1", "2"]);
        take(&mut writer, Event::InitDone);
        assert_eq!(all(&store), ["4"]);
    }

    #[test]
    fn one_object_comes_changes_and_goes() {
        let (store, mut writer) = store();
        take(&mut writer, Event::Apply(named("a", "x", "1")));
        take(&mut writer, Event::Apply(named("a", "x", "2")));
        take(&mut writer, Event::Apply(named("a", "y", "3")));
        take(&mut writer, Event::Apply(named("b", "x", "4")));
        assert_eq!(store.get("a", "x").as_deref().map(String::as_str), Some("2"));
        assert_eq!(store.get("c", "x"), None);
        assert_eq!(store.some("a", |version| version != "2").len(), 1);
        for (namespace, name) in [("a", "x"), ("c", "x"), ("b", "x")] {
            take(&mut writer, Event::Delete(named(namespace, name, "9")));
        }
        assert_eq!(all(&store), ["3"]);
        assert_eq!(lock(&store.records).len(), 1);
    }
}
