/**
 * The calls of a load: what each asks for, and how its answer shows whose it is.
 */
import type pg from "pg";
import { contentOf, payloadOf, tokenOf } from "./sql-token.js";
import type { SqlWitness } from "./sql-witness.js";

/** Effect of a call, which tells where the witness finds its token. */
type Effect = "request" | "core" | "stream" | "value" | "file" | "none";

/** A call that is being made. */
interface CallPlace {
  readonly client: pg.Client;
  readonly witness: SqlWitness;
  readonly session: number;
  readonly number: number;
  readonly token: string;
  /** The tokens of what it writes; the first is `token`. */
  readonly tokens: readonly string[];
  /** The time limit that a request names, in milliseconds. */
  readonly requestTimeoutMs: number;
  /** Last confirmed writes of this session, by kind. */
  readonly last: { value?: string; file?: string };
}

/** A sort of call. */
export interface CallKind {
  readonly effect: Effect;
  /** Relative frequency among the kinds of calls. */
  readonly weight: number;
  /** Number of messages that the call writes. Default 1. */
  readonly messages?: number;
  /** Makes the call. @returns what is wrong with its answer */
  run(place: CallPlace): Promise<string | undefined>;
}

/** All sorts. */
export const callKinds = {
  request: {
    effect: "request",
    weight: 6,
    async run({ client, witness, token, requestTimeoutMs }) {
      const answer = await value(client, "SELECT convert_from(nats_request_text($1, $2, $3), 'UTF8')", [
        witness.echo,
        payloadOf(token),
        requestTimeoutMs,
      ]);
      return differs(answer, `echo/${payloadOf(token)}`);
    },
  },
  ack: {
    effect: "stream",
    weight: 4,
    async run({ client, witness, token }) {
      const { rows } = await client.query<{ stream: string; seq: string }>(
        "SELECT * FROM nats_publish_text_ack($1, $2)",
        [witness.streamed, payloadOf(token)],
      );
      acknowledged(witness).set(token, Number(rows[0]!.seq));
      return differs(rows[0]!.stream, witness.stream);
    },
  },
  stream: {
    effect: "stream",
    weight: 2,
    async run({ client, witness, token }) {
      return nothing(client, "SELECT nats_publish_text_stream($1, $2)", [witness.streamed, payloadOf(token)]);
    },
  },
  "stream batch": {
    effect: "stream",
    weight: 1,
    messages: 20,
    async run({ client, witness, tokens }) {
      return nothing(client, "SELECT nats_publish_text_stream_batch($1, $2)", [
        witness.streamed,
        tokens.map(payloadOf),
      ]);
    },
  },
  core: {
    effect: "core",
    weight: 4,
    async run({ client, witness, token }) {
      return nothing(client, "SELECT nats_publish_text($1, $2)", [witness.core, payloadOf(token)]);
    },
  },
  "core batch": {
    effect: "core",
    weight: 1,
    messages: 20,
    async run({ client, witness, tokens }) {
      const payloads = tokens.map((each) => Buffer.from(payloadOf(each)));
      return nothing(client, "SELECT nats_publish_binary_batch($1, $2)", [witness.core, payloads]);
    },
  },
  put: {
    effect: "value",
    weight: 3,
    async run({ client, witness, token, last }) {
      const revision = await value(client, "SELECT nats_put_text($1, $2, $3)", [
        witness.bucket,
        token,
        payloadOf(token),
      ]);
      last.value = token;
      return Number(revision) > 0 ? undefined : `the revision is ${String(revision)}`;
    },
  },
  get: {
    effect: "none",
    weight: 3,
    run: readValue,
  },
  "put file": {
    effect: "file",
    weight: 1,
    async run({ client, witness, token, last }) {
      const wrong = await nothing(client, "SELECT nats_put_file($1, $2, $3)", [witness.store, token, contentOf(token)]);
      last.file = token;
      return wrong;
    },
  },
  "get file": {
    effect: "none",
    weight: 1,
    async run({ client, witness, last }) {
      // A call that reads a value stands in until there is a file: each turn of the load reaches the gateway.
      if (last.file === undefined) return await readValue({ client, witness, last });
      const found = await value(client, "SELECT nats_get_file($1, $2)", [witness.store, last.file]);
      return contentOf(last.file).equals(found as Buffer) ? undefined : `it is not the file ${last.file}`;
    },
  },
  flush: {
    effect: "none",
    weight: 1,
    async run({ client }) {
      return nothing(client, "SELECT nats_flush()", []);
    },
  },
} as const satisfies Record<string, CallKind>;

/** The name of a sort. */
export type CallKindName = keyof typeof callKinds;

/** The tokens of what a call writes. */
export function tokensOf({ messages }: CallKind, session: number, number: number): string[] {
  if (messages === undefined) return [tokenOf(session, number)];
  return Array.from({ length: messages }, (_, index) => tokenOf(session, number, index));
}

const numbers = new WeakMap<SqlWitness, Map<string, number>>();

/** The stream's numbers that callers were told, by token. */
export function acknowledged(witness: SqlWitness): Map<string, number> {
  const known = numbers.get(witness) ?? new Map<string, number>();
  numbers.set(witness, known);
  return known;
}

async function readValue({ client, witness, last }: Pick<CallPlace, "client" | "witness" | "last">) {
  const found = await value(client, "SELECT nats_get_text($1, $2)", [witness.bucket, last.value ?? "none"]);
  return differs(found, last.value === undefined ? null : payloadOf(last.value));
}

async function value(client: pg.Client, sql: string, values: unknown[]): Promise<unknown> {
  return Object.values((await client.query<Record<string, unknown>>(sql, values)).rows[0]!)[0];
}

/** A function that returns void. */
async function nothing(client: pg.Client, sql: string, values: unknown[]): Promise<string | undefined> {
  return differs(await value(client, sql, values), "");
}

function differs(found: unknown, expected: unknown): string | undefined {
  if (found === expected) return undefined;
  return `the answer is ${JSON.stringify(found)?.slice(0, 80)}, not ${JSON.stringify(expected).slice(0, 80)}`;
}
