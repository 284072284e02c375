/**
 * A client of treehub-level over an `abstract-level` store, for browsers and Node. It works
 * offline, and synchronises with a server over HTTP: `docs/protocol.md` has the protocol,
 * `docs/format.md` the bytes on disk.
 *
 * A value is stored, pulled and pushed as the text of its JSON, so values of other clients pass
 * through exactly. `get`, `iterator` and `conflicts` return numbers of JavaScript, in which an
 * integer beyond 2^53 is rounded.
 */

/** @typedef {import('./src/level.js').Operation} Operation */
/** @typedef {import('./src/level.js').Range} Range */
/** @typedef {import('./src/journal.js').Conflict} Conflict */
/** @typedef {import('./src/http.js').Exchange} Exchange */
/** @typedef {import('./src/http.js').Options} Options */
/** @typedef {import('./src/session.js').Report} Report */

export { LevelError } from './src/errors.js'
export { httpExchange } from './src/http.js'
export { SyncedLevel } from './src/level.js'
export * as ordered from './src/ordered.js'
