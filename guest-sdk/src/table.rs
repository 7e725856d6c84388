//! Columns that a scanner fetched, as rows: so that everything works on them that works on the
//! candidates of a selector.

use crate::{Candidates, Nodes, Slot};

/// Features of some nodes, fetched from the host at once.
#[derive(Clone, Debug)]
pub struct Table {
    slots: Vec<Slot>,
    features: Vec<f32>,
    columns: usize,
}

impl Table {
    /// Fetches `features` of `slots`: one call of the host a feature.
    ///
    /// # Errors
    /// When a column is not as long as `slots`, which no host answers.
    pub fn fetch(
        nodes: &dyn Nodes,
        slots: Vec<Slot>,
        features: &[impl AsRef<str>],
    ) -> Result<Self, String> {
        let columns = features.len();
        let mut table = vec![f32::NAN; slots.len() * columns];
        for (at, feature) in features.iter().enumerate() {
            let column = nodes.column(feature.as_ref(), &slots);
            if column.len() != slots.len() {
                return Err(format!(
                    "a column of {} values for {} nodes",
                    column.len(),
                    slots.len()
                ));
            }
            for (row, value) in column.into_iter().enumerate() {
                table[row * columns + at] = value;
            }
        }
        Ok(Self {
            slots,
            features: table,
            columns,
        })
    }

    /// The rows; columns are numbered as `features` were in [`fetch`](Self::fetch).
    #[must_use]
    pub fn rows(&self) -> Candidates<'_> {
        Candidates::new(&self.slots, &self.features, self.columns)
            .expect("the table was made of that many columns")
            .explained(true)
    }
}
