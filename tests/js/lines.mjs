// The connection between a test and Node: a command a line on stdin, a response a line on stdout.
// The other end is in clients.py.
import { createInterface } from 'node:readline'

/**
 * Run the command of each line, in order. `verbs[verb]` is called with the state of the named
 * client, an object, and with the other fields of the line.
 */
export async function serve(verbs) {
  const clients = new Map()
  for await (const line of createInterface({ input: process.stdin })) {
    const { verb, client = '', ...options } = JSON.parse(line)
    if (!clients.has(client)) clients.set(client, {})
    let response
    try {
      response = { result: (await verbs[verb](clients.get(client), options)) ?? null }
    } catch (error) {
      const message = `${error.message} ${error.cause ?? ''}`
      response = { error: { code: error.code ?? error.name, message, status: error.status ?? null } }
    }
    process.stdout.write(`${JSON.stringify(response)}\n`)
  }
}
