/**
 * A mistake in a JSON schema of the spec. buf prints the message and exits with a status other than zero.
 *
 * The message is `<file>: <element>: <problem>`, the element as a JSON pointer:
 * `schema/nats-server-options.schema.json: #/properties/port/default: 0 is below the minimum, 1`.
 */
export class SchemaError extends Error {
  override readonly name = "SchemaError";

  constructor(file: string, pointer: string, problem: string) {
    super(`${file}: #${pointer}: ${problem}`);
  }
}
