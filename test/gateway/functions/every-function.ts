/**
 * A call of each function, and its effect as an independent client must see it.
 */
import { expect } from "vitest";
import { parametersOf, referenceFunctions } from "./reference-table.js";
import type { Witness } from "./witness.js";

/** A call. */
export interface SampleCall {
  readonly name: string;
  /** Its parameters and what they are given, as literals of SQL. */
  readonly given: Readonly<Record<string, string>>;
  /** Looks at what it returned and at what it did. */
  check(rows: readonly Record<string, unknown>[], witness: Witness): Promise<void>;
}

interface SampleType {
  readonly name: string;
  readonly literal: string;
  readonly bytes: string;
  /** Result as node-postgres returns it. */
  readonly read: unknown;
  /** The type of an array of it. */
  readonly array: string;
}

const types: readonly SampleType[] = [
  { name: "text", literal: "'hello'", bytes: "hello", read: "hello", array: "text[]" },
  { name: "json", literal: `'{"key":  1.0}'::json`, bytes: '{"key":  1.0}', read: { key: 1 }, array: "json[]" },
  { name: "jsonb", literal: `'{"key":  1.0}'::jsonb`, bytes: '{"key": 1.0}', read: { key: 1 }, array: "jsonb[]" },
  {
    name: "binary",
    literal: "decode('6461007461', 'hex')",
    bytes: "da\0ta",
    read: Buffer.from("da\0ta"),
    array: "bytea[]",
  },
];

const headers = `'{"Trace": ["1", "2"], "__proto__": "x"}'::jsonb`;
const headerPairs = [
  ["Trace", ["1", "2"]],
  ["__proto__", ["x"]],
];

/** True where NULL means the default: of a time limit, too, which has to be given. */
export function isOptional(fn: string, parameter: string): boolean {
  const parameters = parametersOf(referenceFunctions.find(({ name }) => name === fn)!);
  return parameter === "timeout" || parameters.some(({ name, hasDefault }) => name === parameter && hasDefault);
}

/** Name of a function in errors: those of one family, which differ by the type of the payload alone, have one name. */
export function familyOf(name: string): string {
  return name.replace(/_(?:text|jsonb?|binary)(?=_|$)/, "_*");
}

/** The call by position: its arguments in the order of the parameters. */
export function byPosition({ name, given }: SampleCall): string {
  return `SELECT * FROM ${name}(${Object.values(given).join(", ")})`;
}

/** The call by the names of the parameters, in another order. */
export function byName({ name, given }: SampleCall): string {
  const named = Object.entries(given).map(([parameter, literal]) => `${parameter} => ${literal}`);
  return `SELECT * FROM ${name}(${named.reverse().join(", ")})`;
}

/**
 * Prepares the samples: a stream for `<word>.stream.>`, a service that answers `<word>-rpc`, and values and files to
 * read and delete.
 */
export async function prepareSamples(witness: Witness, word: string): Promise<void> {
  await witness.manager.streams.add({ name: `${word}_stream`, subjects: [`${word}.stream.>`] });
  witness.respond(`${word}-rpc`, (request) => Buffer.concat([Buffer.from("echo "), request.data]));
  await witness.nats.flush();
}

/** Calls of all functions, in an order in which each finds what it needs. */
export function sampleCalls(word: string): SampleCall[] {
  const calls = [...types.flatMap((type, nth) => [...messages(word, type), ...values(word, type, nth)]), ...rest(word)];
  const missing = referenceFunctions.filter(({ name }) => !calls.some((call) => call.name === name));
  if (missing.length > 0) throw new Error(`no sample call of ${missing.map(({ name }) => name).join(", ")}`);
  for (const { name, given } of calls) {
    const parameters = parametersOf(referenceFunctions.find((one) => one.name === name)!).map((one) => one.name);
    const isComplete = JSON.stringify(Object.keys(given)) === JSON.stringify(parameters);
    if (!isComplete) throw new Error(`the sample call of ${name} has to give ${parameters.join(", ")}, in this order`);
  }
  return calls;
}

function messages(word: string, { name: type, literal, bytes, array }: SampleType): SampleCall[] {
  const core = `${word}.core.${type}`;
  const stream = `${word}.stream.${type}`;
  const expectMessages = async (witness: Witness, subject: string, count: number, reply = "") => {
    const seen = await witness.messages(count);
    expect(
      seen.map((one) => [
        one.subject,
        one.string(),
        [...(one.headers ?? [])].filter(([name]) => !name.startsWith("Nats-")),
      ]),
    ).toEqual(Array.from({ length: count }, () => [subject, bytes, headerPairs]));
    if (subject === core) expect(seen.map((one) => one.reply ?? "")).toEqual(seen.map(() => reply));
  };
  const expectStored = async (witness: Witness, fromEnd = 0) => {
    const { state } = await witness.manager.streams.info(`${word}_stream`);
    const stored = await witness.manager.streams.getMessage(`${word}_stream`, { seq: state.last_seq - fromEnd });
    expect([stored?.subject, stored?.string()]).toEqual([stream, bytes]);
    return state.last_seq;
  };
  const toCore = { subject: `'${core}'`, payload: literal, reply: `'${word}-answers'`, headers };
  const toStream = { subject: `'${stream}'`, payload: literal, headers, domain: "NULL" };
  const payloads = `ARRAY[${literal}, ${literal}, ${literal}]::${array}`;
  return [
    {
      name: `nats_publish_${type}`,
      given: toCore,
      check: (_rows, witness) => expectMessages(witness, core, 1, `${word}-answers`),
    },
    {
      name: `nats_publish_${type}_batch`,
      given: { subject: `'${core}'`, payloads, reply: `'${word}-answers'`, headers },
      check: (_rows, witness) => expectMessages(witness, core, 3, `${word}-answers`),
    },
    {
      name: `nats_publish_${type}_stream`,
      given: toStream,
      async check(_rows, witness) {
        await expectMessages(witness, stream, 1);
        await expectStored(witness);
      },
    },
    {
      name: `nats_publish_${type}_ack`,
      given: toStream,
      async check(rows, witness) {
        await expectMessages(witness, stream, 1);
        const seq = await expectStored(witness);
        expect(rows).toEqual([{ stream: `${word}_stream`, seq: `${seq}`, duplicate: false }]);
      },
    },
    {
      name: `nats_publish_${type}_stream_batch`,
      given: { subject: `'${stream}'`, payloads, headers, domain: "NULL" },
      async check(_rows, witness) {
        await expectMessages(witness, stream, 3);
        for (const fromEnd of [0, 1, 2]) await expectStored(witness, fromEnd);
      },
    },
    {
      name: `nats_request_${type}`,
      given: { subject: `'${word}-rpc'`, payload: literal, timeout: "20000" },
      check: async (rows) => expect(rows).toEqual([{ [`nats_request_${type}`]: Buffer.from(`echo ${bytes}`) }]),
    },
  ];
}

function values(word: string, { name: type, literal, bytes, read }: SampleType, nth: number): SampleCall[] {
  const place = { bucket: `'${word}'`, key: `'of/${type}'` };
  return [
    {
      name: `nats_put_${type}`,
      given: { ...place, data: literal, domain: "NULL" },
      async check(rows, witness) {
        const entry = await witness.value(word, `of/${type}`);
        expect(entry?.string()).toBe(bytes);
        expect(rows).toEqual([{ [`nats_put_${type}`]: `${entry?.revision}` }]);
      },
    },
    {
      name: `nats_kv_create_${type}`,
      given: { ...place, key: `'new/${type}'`, data: literal, domain: "NULL" },
      async check(rows, witness) {
        const entry = await witness.value(word, `new/${type}`);
        expect(entry?.string()).toBe(bytes);
        expect(rows).toEqual([{ [`nats_kv_create_${type}`]: `${entry?.revision}` }]);
      },
    },
    {
      name: `nats_kv_update_${type}`,
      // What a new bucket has by now: a value and a created one for each type up to this one, and an update for those before.
      given: { ...place, key: `'new/${type}'`, data: literal, revision: `${3 * nth + 2}`, domain: "NULL" },
      async check(rows, witness) {
        const entry = await witness.value(word, `new/${type}`);
        expect([entry?.string(), entry?.revision]).toEqual([bytes, 3 * nth + 3]);
        expect(rows).toEqual([{ [`nats_kv_update_${type}`]: `${entry?.revision}` }]);
      },
    },
    {
      name: `nats_get_${type}`,
      given: { ...place, domain: "NULL" },
      check: async (rows) => expect(rows).toEqual([{ [`nats_get_${type}`]: read }]),
    },
  ];
}

function rest(word: string): SampleCall[] {
  const file = { store: `'${word}'`, name: "'a file.txt'" };
  const fileRow = {
    name: "a file.txt",
    bucket: word,
    size: "7",
    chunks: "1",
    delete: false,
    nuid: expect.stringMatching(/^[0-9A-Za-z]{22}$/),
    modified: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/),
    digest: expect.stringMatching(/^SHA-256=/),
  };
  const nothing = (name: string, witness: Witness, rows: readonly Record<string, unknown>[]) => {
    // The void of a function of SQL is NULL, of others "".
    expect(rows.map((row) => row[name] ?? "")).toEqual([""]);
    return witness.untaken().then((count) => expect(count).toBe(0));
  };
  const reloads = ["reload_conf", "reload_conf_force"].flatMap((name) => [`litmus_pgnats_${name}`, `pgnats_${name}`]);
  return [
    {
      name: "nats_delete_value",
      given: { bucket: `'${word}'`, key: "'of/text'", domain: "NULL" },
      check: async (_rows, witness) => expect((await witness.value(word, "of/text"))?.operation).toBe("DEL"),
    },
    {
      name: "nats_kv_keys",
      given: { bucket: `'${word}'`, domain: "NULL" },
      check: async (rows) => {
        const keys = types.flatMap(({ name }) => [`new/${name}`, `of/${name}`]).filter((key) => key !== "of/text");
        expect(rows).toEqual(keys.sort().map((key) => ({ key })));
      },
    },
    {
      name: "nats_kv_history",
      given: { bucket: `'${word}'`, key: "'new/text'", domain: "NULL" },
      check: async (rows) =>
        expect(rows).toEqual([
          {
            revision: "3",
            operation: "PUT",
            value: Buffer.from("hello"),
            created: expect.stringMatching(/^\d{4}-.*Z$/),
          },
        ]),
    },
    {
      name: "nats_put_file",
      given: { ...file, content: "'content'::bytea", domain: "NULL" },
      check: async (_rows, witness) => expect((await witness.file(word, "a file.txt"))?.toString()).toBe("content"),
    },
    {
      name: "nats_get_file",
      given: { ...file, domain: "NULL" },
      check: async (rows) => expect(rows).toEqual([{ nats_get_file: Buffer.from("content") }]),
    },
    {
      name: "nats_get_file_info",
      given: { ...file, domain: "NULL" },
      check: async (rows) => expect(rows).toEqual([expect.objectContaining(fileRow)]),
    },
    {
      name: "nats_get_file_list",
      given: { store: `'${word}'`, domain: "NULL" },
      check: async (rows) => expect(rows).toEqual([expect.objectContaining(fileRow)]),
    },
    {
      name: "nats_delete_file",
      given: { ...file, domain: "NULL" },
      check: async (_rows, witness) => expect(await witness.file(word, "a file.txt")).toBeUndefined(),
    },
    {
      name: "nats_create_stream",
      given: {
        ...{ stream: `'${word}_made'`, subjects: `ARRAY['${word}.made.*', '${word}.of."{}",']`, storage: "'memory'" },
        ...{ retention: "'interest'", discard: "'new'", max_age_ms: "3600000", max_messages: "1000" },
        ...{ max_bytes: "1000000", max_message_bytes: "1000", duplicate_window_ms: "60000", replicas: "1" },
        domain: "NULL",
      },
      async check(_rows, witness) {
        expect((await witness.manager.streams.info(`${word}_made`)).config).toMatchObject({
          ...{ subjects: [`${word}.made.*`, `${word}.of."{}",`], storage: "memory", retention: "interest" },
          ...{ discard: "new", max_age: 3_600_000e6, max_msgs: 1000, max_bytes: 1_000_000, max_msg_size: 1000 },
          ...{ duplicate_window: 60_000e6, num_replicas: 1 },
        });
      },
    },
    {
      name: "nats_update_stream",
      given: {
        ...{ stream: `'${word}_made'`, subjects: `ARRAY['${word}.made.>']`, discard: "NULL", max_age_ms: "0" },
        ...{ max_messages: "0", max_bytes: "2000000", max_message_bytes: "NULL", duplicate_window_ms: "NULL" },
        ...{ replicas: "NULL", domain: "NULL" },
      },
      async check(_rows, witness) {
        expect((await witness.manager.streams.info(`${word}_made`)).config).toMatchObject({
          ...{ subjects: [`${word}.made.>`], storage: "memory", retention: "interest", discard: "new", max_age: 0 },
          ...{ max_msgs: -1, max_bytes: 2_000_000, max_msg_size: 1000, duplicate_window: 60_000e6 },
        });
      },
    },
    {
      name: "nats_get_stream_list",
      given: { domain: "NULL" },
      check: async (rows) => {
        const made = rows.filter(({ stream }) => stream === `${word}_made`);
        expect(made).toEqual([
          {
            ...{ stream: `${word}_made`, subjects: [`${word}.made.>`], storage: "memory", retention: "interest" },
            ...{ discard: "new", max_age_ms: "0", max_messages: "0", max_bytes: "2000000", max_message_bytes: 1000 },
            ...{ duplicate_window_ms: "60000", replicas: 1, messages: "0", bytes: "0", first_seq: "0", last_seq: "0" },
            ...{ consumers: 0, created: expect.stringMatching(/^\d{4}-.*Z$/) },
          },
        ]);
        const names = rows.map(({ stream }) => stream as string);
        expect(names).toContain(`KV_${word}`);
        expect(names).toEqual([...names].sort());
      },
    },
    {
      name: "nats_delete_stream",
      given: { stream: `'${word}_made'`, domain: "NULL" },
      check: async (_rows, witness) => expect(await witness.streams()).not.toContain(`${word}_made`),
    },
    {
      name: "nats_get_server_info",
      given: {},
      async check(rows, witness) {
        const { info } = witness.nats;
        expect(rows).toHaveLength(1);
        expect(rows[0]).toMatchObject({
          server_id: info?.server_id,
          version: info?.version,
          port: info?.port,
          max_payload: `${info?.max_payload}`,
          headers: true,
          auth_required: false,
          tls_required: false,
          tls_requiered: false,
          lame_duck_mode: false,
        });
      },
    },
    ...["litmus_pgnats_version", "pgnats_version"].map((name) => ({
      name,
      given: {},
      check: async (rows: readonly Record<string, unknown>[]) =>
        expect(rows).toEqual([expect.objectContaining({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) })]),
    })),
    ...["nats_flush", ...reloads].map((name) => ({
      name,
      given: {},
      check: (rows: readonly Record<string, unknown>[], witness: Witness) => nothing(name, witness, rows),
    })),
  ];
}

/** Makes all the calls, and checks each. */
export async function callEveryFunction(
  word: string,
  witness: Witness,
  run: (sql: string, call: SampleCall) => Promise<readonly Record<string, unknown>[]>,
  write: (call: SampleCall) => string = byPosition,
): Promise<void> {
  for (const call of sampleCalls(word)) {
    const sql = write(call);
    try {
      await call.check(await run(sql, call), witness);
    } catch (error) {
      throw new Error(`${sql}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  }
}
