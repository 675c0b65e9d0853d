// Package inflate reads gzip (RFC 1952) and the deflate in it (RFC 1951).
//
// It stands below store/layer alone, and it is here because inflating is what a
// pull waits for (docs/decision/0008-own-inflate.md): the same bytes and the same
// refusals as compress/gzip, in less than half of the time of a good library. What makes it fast:
//
//   - 64 bits of input at a time, and no look at the ends of input and output
//     while they are far;
//   - one look into a table gives a literal, or a length with its extra bits;
//   - output goes straight to where the caller wants it, in large pieces. The last
//     32 kB are put in front of each, so that a match never wraps.
package inflate
