/** An error that this client or the server reports on purpose. */
export class LevelError extends Error {
  /**
   * @param {string} code stable, and the same as in the Python library, such as `LEVEL_INVALID_KEY`
   * @param {string} message for people; it may change
   * @param {number} [status] the status of the HTTP response, where there was one
   */
  constructor(code, message, status) {
    super(message)
    this.code = code
    this.status = status
  }
}
