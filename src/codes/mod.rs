//! Vectors as int8 codes: how they are made, how far they are off, and how they are compared.

pub mod kernels;
pub mod quantize;
