//! What is written down, held against itself and against the programs of others: the CRD, the chart, the documents, the
//! sources, and lines as parsers of CEF read them.

mod tidy;
mod helm;
mod argo;
mod parsers;
mod admit;
mod stored;
mod shown;
