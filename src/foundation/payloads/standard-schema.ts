/** Topics whose messages are JSON that a Standard Schema checks: one of zod, valibot, arktype and others. */
import type { DescMessage } from "@bufbuild/protobuf";
import { HawserError, invalidArgument } from "../errors/index.js";
import { isSchema, jsonOf } from "./payload.js";

/** The part of the interface of https://standardschema.dev, version 1, that is used here. */
interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Validation<Output> | Promise<Validation<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

type Validation<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly Issue[] };

interface Issue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** Value that a schema accepts. */
export type InputOf<Schema extends StandardSchema> = NonNullable<Schema["~standard"]["types"]>["input"];

/** Value that a schema returns, with its defaults and transformations. */
export type OutputOf<Schema extends StandardSchema> = NonNullable<Schema["~standard"]["types"]>["output"];

/**
 * Topic with the schema of its messages. A message is JSON, and is checked by the schema when it is sent or enqueued,
 * and again when it is handled. The handler gets the value that the schema returns.
 *
 *     const orderPlaced = { topic: "order-placed", schema: z.object({ id: z.int(), note: z.string().optional() }) };
 */
export interface SchemaTopic<Schema extends StandardSchema = StandardSchema> {
  readonly topic: string;
  /** Schema of zod, valibot, arktype or any other library with the Standard Schema interface. It must be synchronous. */
  readonly schema: Schema;
}

/** True for a destination that has a schema, of Protobuf or of its own. */
export function hasSchema(to: unknown): to is DescMessage | SchemaTopic {
  return isSchema(to) || isSchemaTopic(to);
}

export function isSchemaTopic(to: unknown): to is SchemaTopic {
  return typeof to === "object" && to !== null && "schema" in to;
}

/** @throws HawserError `invalid_argument` for a schema without the interface */
export function checkSchemaTopic({ topic, schema }: SchemaTopic): void {
  if (typeof schema?.["~standard"]?.validate === "function") return;
  const remedy = "give a Standard Schema, such as one of zod, valibot or arktype";
  throw invalidArgument(`the schema of "${topic}" has no method ~standard.validate; ${remedy}`);
}

/**
 * Encodes a message as JSON. The schema checks the message as a handler will parse it, so that every message that is
 * sent is accepted there.
 *
 * @throws HawserError `invalid_argument` with the path of the first value that the schema refuses
 */
export function encodeChecked(to: SchemaTopic, message: unknown): Uint8Array {
  checkSchemaTopic(to);
  let json: string | undefined;
  try {
    json = JSON.stringify(message);
  } catch (cause) {
    throw invalidArgument(`a message of "${to.topic}": ${(cause as Error).message}`, cause);
  }
  if (json === undefined) throw invalidArgument(`a message of "${to.topic}": JSON has no ${typeof message}`);
  const { issues } = validate(to, JSON.parse(json));
  if (issues !== undefined) throw invalidArgument(issueText(to, issues));
  return Buffer.from(json);
}

/** Decodes a message. @throws HawserError `invalid_message` if it is not JSON, or if the schema refuses it */
export function decodeChecked(to: SchemaTopic, payload: Uint8Array): unknown {
  const checked = validate(to, jsonOf(payload));
  if (checked.issues !== undefined) throw new HawserError("invalid_message", issueText(to, checked.issues));
  return checked.value;
}

function validate({ topic, schema }: SchemaTopic, value: unknown): Validation<unknown> {
  const checked = schema["~standard"].validate(value);
  if (!("then" in checked)) return checked;
  checked.then(undefined, () => undefined);
  throw invalidArgument(`the schema of "${topic}" is asynchronous; check in the handler what has to be waited for`);
}

/** Path and message of the first issue. */
function issueText({ topic }: SchemaTopic, [first]: readonly Issue[]): string {
  // Some libraries have a path of a class that extends Array and cannot be mapped.
  const keys = Array.from(first?.path ?? [], (step) => (typeof step === "object" ? step.key : step));
  const path = keys.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  return `${topic}${path}: ${first?.message}`;
}
