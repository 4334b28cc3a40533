//! HTTP/1.1 on the wire (RFC 9112): reading heads strictly, copying them on with only the lines
//! changed that a gateway must change, and following bodies without taking them apart.

pub mod chunked;
pub mod fields;
pub mod head;
pub mod request;
pub mod response;
