/** The limits of the protocol (`docs/protocol.md`). Both sides apply the same ones. */

/** The version of the protocol. */
export const PROTOCOL = 2
/** Changes in one page, and entries in one part of a fill. */
export const MAX_CHANGES = 65_536
/** Changes in one push. */
export const MAX_PUSH = 16_384
/** Keys whose present values one request may ask for. */
export const MAX_READ = 1000
/**
 * Bytes of changes in one push, of all rows in one reply, and of deleted values in one batch of a
 * fill.
 */
export const MAX_BYTES = 8 << 20
/**
 * Bytes of a reply: `MAX_BYTES` of rows, 20 for the CID of each, and as many bytes of rejected keys
 * as a push may have.
 */
export const MAX_REPLY_BYTES = 20 << 20
/** Commas and opening brackets in a reply, as many as a page of `MAX_BYTES` can have. */
export const MAX_ITEMS = 7_000_000
/** The same in a reply beside its rows. */
export const MAX_HEADER_ITEMS = 400_000
/** Epochs that a client keeps and sends. */
export const MAX_EPOCHS = 32
/** Characters in the reason of a refusal. */
export const MAX_REASON = 500
