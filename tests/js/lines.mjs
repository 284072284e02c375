// How a test speaks to Node: one command a line on stdin, one answer a line on stdout. The other end is in clients.py.
import { createInterface } from 'node:readline'

/** Do what each line says, in order: `verbs[verb]` gets the client that is named, an object of its own, and the rest. */
export async function serve(verbs) {
  const clients = new Map()
  for await (const line of createInterface({ input: process.stdin })) {
    const { verb, client = '', ...options } = JSON.parse(line)
    if (!clients.has(client)) clients.set(client, {})
    let answer
    try {
      answer = { result: (await verbs[verb](clients.get(client), options)) ?? null }
    } catch (error) {
      answer = { error: { code: error.code ?? error.name, message: `${error.message} ${error.cause ?? ""}`, status: error.status ?? null } }
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`)
  }
}
