/**
 * Messages and `hawser doctor` in databases with other settings, encodings and collations: nothing is lost, and an error names
 * its cause.
 */
import pg from "pg";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { enqueue } from "../../src/jobs-and-peers/peer/index.js";
import { doctor } from "../../src/operating/doctor/index.js";
import { install } from "../../src/operating/installation/index.js";
import { TestPeer } from "../peer/support/world.js";
import { type TestDatabase, testDatabase, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { onServer, rowsOf } from "../support/on-server.js";

/** Setting of a database. */
interface SettingCase {
  readonly setting: string;
  readonly value: string;
  /** Text of the dead letter of a transactional handler that is slow: the setting is the user's, whose code it limits. */
  readonly limits?: RegExp;
  /** Text of the error with which an installation and a peer are refused. */
  readonly refuses?: RegExp;
}

const cases: readonly SettingCase[] = [
  // What Postgres prints.
  ...[
    ["quote_all_identifiers", "on"],
    ["DateStyle", "SQL, DMY"],
    ["IntervalStyle", "sql_standard"],
    ["TimeZone", "Pacific/Chatham"],
    ["bytea_output", "escape"],
    ["extra_float_digits", "-15"],
    ["xmlbinary", "hex"],
    ["client_encoding", "LATIN1"],
    ["client_min_messages", "error"],
    ["lc_messages", "C"],
  ].map(([setting, value]) => ({ setting: setting!, value: value! })),
  // How statements are read, planned and executed.
  ...[
    ["search_path", "elsewhere"],
    ["standard_conforming_strings", "off"],
    ["escape_string_warning", "off"],
    ["backslash_quote", "off"],
    ["array_nulls", "off"],
    ["transform_null_equals", "on"],
    ["check_function_bodies", "off"],
    ["plan_cache_mode", "force_generic_plan"],
    ["enable_seqscan", "off"],
    ["work_mem", "64kB"],
    ["session_replication_role", "replica"],
    ["row_security", "off"],
    ["plpgsql.extra_errors", "all"],
    ["plpgsql.variable_conflict", "use_variable"],
    ["default_toast_compression", "pglz"],
    ["password_encryption", "md5"],
  ].map(([setting, value]) => ({ setting: setting!, value: value! })),
  // Transactions.
  { setting: "default_transaction_isolation", value: "serializable" },
  { setting: "default_transaction_deferrable", value: "on" },
  { setting: "synchronous_commit", value: "off" },
  { setting: "default_transaction_read_only", value: "on", refuses: /default_transaction_read_only/ },
  // What ends a statement or a session.
  { setting: "statement_timeout", value: "20", limits: /canceling statement due to statement timeout/ },
  { setting: "lock_timeout", value: "1" },
  { setting: "exit_on_error", value: "on" },
  { setting: "idle_session_timeout", value: "20" },
  {
    setting: "idle_in_transaction_session_timeout",
    value: "20",
    limits: /the setting idle_in_transaction_session_timeout of the role, the database or the server/,
  },
  {
    setting: "transaction_timeout",
    value: "100",
    limits: /the setting transaction_timeout of the role, the database or the server/,
  },
  { setting: "client_connection_check_interval", value: "1" },
  { setting: "tcp_user_timeout", value: "100" },
];

const encodings = ["UTF8", "LATIN1", "LATIN9", "WIN1252", "EUC_JP", "SQL_ASCII"];

/** Texts in Latin, Japanese and emoji. No encoding but UTF8 and SQL_ASCII has all of them. */
const texts = ["plain", "\u00e9\u00df\u20ac", "\u65e5\u672c", "\u{1f600}"];

const databases: (TestDatabase | { drop(): Promise<void> })[] = [];
afterEach(async () => {
  for (const database of databases.splice(0)) await database.drop();
});

/** Findings in a database that nobody has changed, about roles that all databases share. */
let usual: Readonly<Record<"nats" | "peers", readonly string[]>>;

beforeAll(async () => {
  await using whole = await testDatabase();
  await using ofPeers = await testDatabase({ nats: false });
  usual = { nats: await findingsOf(whole.url), peers: await findingsOf(ofPeers.url) };
});

async function findingsOf(databaseUrl: string): Promise<string[]> {
  const { findings } = await doctor({ databaseUrl, secretsDirectories: [] });
  const found = findings.map(({ check, severity }) => `${check} ${severity}`);
  return [...new Set(found)].filter((one) => one !== "dead-letters warning").sort();
}

/** Session of the test, which the settings of the database do not limit. */
async function operatorOf(url: string): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: url,
    options:
      "-c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c idle_in_transaction_session_timeout=0",
  });
  client.on("error", () => undefined);
  await client.connect();
  await client.query("SET client_encoding = 'UTF8'; SET search_path = public");
  return client;
}

/** Sends live and stored messages, enqueues some, and makes a dead letter. @param limits as in {@link SettingCase} */
async function exercise(url: string, limits?: RegExp): Promise<void> {
  const operator = await operatorOf(url);
  await operator.query("CREATE TABLE public.effects (effect text); CREATE TABLE public.others (id integer)");
  const tuning = { ackTimeoutMs: 20_000, connectWaitMs: 20_000 };
  const defaults = { retry: { attempts: 2, delayMs: 5 } };
  const sender = new TestPeer({ name: "a-1", topic: "a", databaseUrl: url, tuning });
  const listener = new TestPeer({ name: "b-1", topic: "b", databaseUrl: url, tuning, defaults });
  const writer = new TestPeer({ name: "c-1", topic: "c", databaseUrl: url, tuning, defaults, transactional: true });
  try {
    await sender.record();
    await listener.record(({ payload }) => {
      if (Buffer.from(payload).toString() === "bad") throw new Error(texts.join(" "));
    });
    await writer.record(async ({ client }) => {
      if (limits !== undefined) {
        // Either of them is too long.
        await client.query("SELECT pg_catalog.pg_sleep(0.3)");
        await new Promise((resolve) => client.once("end", resolve));
      }
      await client.query("INSERT INTO public.effects VALUES ('one')");
    });
    const live = await sender.send("b", "live");
    expect(live.outcome).toBe("delivered");
    await sender.send("b", "bad");
    await sender.send("c", "x");
    const letters = limits === undefined ? 1 : 2;
    const lettersSql = "SELECT error_message FROM hawser_data.dead_letters ORDER BY topic DESC";
    await eventually(
      "the dead letters are stored",
      async () => (await operator.query(lettersSql)).rowCount === letters,
    );
    const { rows } = await operator.query<{ error_message: string }>(lettersSql);
    if (limits !== undefined) expect(rows[0]!.error_message).toMatch(limits);
    else {
      await eventually("the effect is there", async () => {
        return (await operator.query("SELECT effect FROM public.effects")).rowCount === 1;
      });
    }
    await listener.stop();
    const stored = await Promise.all(
      texts.map((text) => sender.send("b", text, { headers: [["which", text]], key: text })),
    );
    expect(stored.map(({ outcome }) => outcome)).toEqual(texts.map(() => "stored"));
    await enqueue(operator, "b", "enqueued", { key: "k" });
    const taken: string[] = [];
    for (const text of texts) {
      const enqueued = enqueue(operator, "b", `enqueued ${text}`, { headers: { which: text } });
      // What the encoding lacks is refused to the caller, who is told so.
      const refusal = await enqueued.then(() => undefined).catch((error) => error);
      if (refusal === undefined) taken.push(text);
      else expect(refusal).toMatchObject({ code: "22P05" });
    }
    await listener.record();
    const expected = ["live", "bad", "bad", ...texts, "enqueued", ...taken.map((text) => `enqueued ${text}`)];
    await eventually("all have come", () => listener.texts.length >= expected.length);
    expect(listener.texts.toSorted()).toEqual(expected.toSorted());
    for (const { text, headers } of listener.received.all) {
      const own = headers.filter(([name]) => name === "which");
      if (texts.includes(text)) expect(own).toEqual([["which", text]]);
    }
    await eventually("nothing waits", async () => (await sender.pending()).count === 0);
  } finally {
    await Promise.all([sender, listener, writer].map((peer) => peer.stop({ timeoutMs: 5_000 })));
    await operator.end();
  }
}

describe("a database with another", () => {
  it.each(cases)("$setting = $value", async ({ setting, value, limits, refuses }) => {
    const database = await testDatabase();
    databases.push(database);
    const [known] = await rowsOf(
      database.url,
      `SELECT FROM pg_settings WHERE lower(name) = lower('${setting}') UNION SELECT WHERE '${setting}' LIKE 'plpgsql.%'`,
    );
    // Those of newer versions of Postgres.
    if (known === undefined) return;
    await onServer(
      testServerUrl(),
      `ALTER DATABASE ${database.name} SET ${setting} = ${setting === "search_path" ? value : `'${value}'`}`,
    );
    if (refuses !== undefined) {
      await expect(install({ databaseUrl: database.url })).rejects.toThrow(refuses);
      await expect(new TestPeer({ name: "a-1", databaseUrl: database.url }).start()).rejects.toThrow(refuses);
      return;
    }
    const { migrations, missingPrivileges } = await install({ databaseUrl: database.url });
    expect([migrations, missingPrivileges]).toEqual([[], []]);
    await exercise(database.url, limits);
    expect(await findingsOf(database.url)).toEqual(usual.nats);
  });

  it("of them when it is prepared", async () => {
    const database = await testDatabase({ migrated: false });
    databases.push(database);
    const settings = cases.filter(
      ({ refuses, setting }) => refuses === undefined && setting !== "session_replication_role",
    );
    const present = await rowsOf(database.url, "SELECT lower(name) AS name FROM pg_settings");
    for (const { setting, value } of settings) {
      if (!present.some(({ name }) => name === setting.toLowerCase())) continue;
      await onServer(
        testServerUrl(),
        `ALTER DATABASE ${database.name} SET ${setting} = ${setting === "search_path" ? value : `'${value}'`}`,
      );
    }
    await install({ databaseUrl: database.url, nats: false });
    expect(await findingsOf(database.url)).toEqual(usual.peers);
  });
});

/** Makes a database for peers. */
async function made(name: string, how: string): Promise<string> {
  await onServer(testServerUrl(), `CREATE DATABASE ${name} TEMPLATE template0 ${how}`);
  databases.push({ drop: () => onServer(testServerUrl(), `DROP DATABASE ${name} WITH (FORCE)`) });
  const url = Object.assign(new URL(testServerUrl()), { pathname: `/${name}` }).href;
  await onServer(url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
  await install({ databaseUrl: url, nats: false });
  return url;
}

describe("a database with the encoding", () => {
  it.each(encodings)("%s", async (encoding) => {
    const name = `hawser_surroundings_${encoding.toLowerCase()}_${process.pid}`;
    const url = await made(name, `ENCODING '${encoding}' LOCALE 'C'`);
    await exercise(url);
    expect(await findingsOf(url)).toEqual(usual.peers);
  });
});

describe("a database with the collation", () => {
  it.each(["C", "en-US", "tr"])("%s", async (locale) => {
    const [row] = await rowsOf(testServerUrl(), "SELECT current_setting('server_version_num')::integer AS version");
    const isIcu = locale !== "C";
    // Postgres 14 has no ICU locale for a database.
    if (isIcu && (row!["version"] as number) < 150_000) return;
    const provider = isIcu ? `LOCALE_PROVIDER icu ICU_LOCALE '${locale}'` : "";
    const name = `hawser_surroundings_${locale.replace("-", "_").toLowerCase()}_${process.pid}`;
    const url = await made(name, `ENCODING 'UTF8' LOCALE 'C' ${provider}`);
    await exercise(url);
    expect(await findingsOf(url)).toEqual(usual.peers);
  });
});
