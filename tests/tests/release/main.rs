//! What ships: the images, and the way from the documents to a cluster that runs them.

mod images;
mod release;
