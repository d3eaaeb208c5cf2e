/** Writes one line of JSON. */
export function log(message, fields = {}) {
  process.stdout.write(JSON.stringify({ time: new Date().toISOString(), message, ...fields }) + '\n');
}
