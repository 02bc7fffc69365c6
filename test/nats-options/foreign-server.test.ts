import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { serverOptions } from "../../generated/ts/nats-options/index.js";
import { cases } from "./cases.js";
import { optionsClause, ValidatorDatabase } from "./validator-database.js";

const wrapper = "litmus_pgnats_fdw";
const server = "nats_fdw_server";
const createServer = (options: Readonly<Record<string, string>>) =>
  `CREATE SERVER ${server} FOREIGN DATA WRAPPER ${wrapper} ${optionsClause(options)}`;
const createMapping = (options: Readonly<Record<string, string>>) =>
  `CREATE USER MAPPING FOR CURRENT_USER SERVER ${server} ${optionsClause(options)}`;

let database: ValidatorDatabase;
beforeAll(async () => {
  database = await ValidatorDatabase.create();
  await database.client.query(`CREATE FOREIGN DATA WRAPPER ${wrapper} VALIDATOR hawser_fdw.nats_fdw_validator`);
});
afterAll(() => database[Symbol.asyncDispose]());

/** Cases with names that OPTIONS (…) permits, and with strings alone as values. */
const sqlCases = cases.filter(({ options }) =>
  Object.entries(options).every(
    ([name, value]) => typeof value === "string" && /^[^=]+$/.test(name) && Buffer.byteLength(name) < 64,
  ),
);

describe("CREATE SERVER", () => {
  it("says what the violation function says", async () => {
    expect(sqlCases.length).toBeGreaterThan(100);
    const answers = await database.check(
      sqlCases.map(({ options }) => options),
      "server",
    );
    for (const [number, { name, options }] of sqlCases.entries()) {
      const answer = answers[number]!;
      const error = await database.errorOf(createServer(options as Record<string, string>));
      const { message, code: sqlstate, detail, hint } = error ?? {};
      const { option: _, ...said } = answer.ok ? { option: "" } : answer.violation;
      expect({ message, sqlstate, detail, hint }, name).toEqual(said);
    }
  });

  it("takes a user name whose password is to come from the user mapping", async () => {
    expect(await database.errorOf(createServer({ username: "me" }), createMapping({ password: "x" }))).toBeUndefined();
  });

  it("refuses at once what no user mapping can mend", async () => {
    const mutual = { tls_ca_path: "/ca", tls_cert_path: "/cert", tls_key_path: "/key" };
    for (const name of ["tls_cert_path", "tls_key_path"] as const) {
      const { [name]: _, ...rest } = mutual;
      const error = await database.errorOf(createServer(rest));
      expect(error).toMatchObject({ code: "HV002", message: expect.stringContaining(`option "${name}" is missing`) });
    }
  });

  it("refuses a password without user name and shows how to write an empty one", async () => {
    const error = await database.errorOf(createServer({ password: "hunter2" }));
    expect(error).toMatchObject({ code: "HV002", hint: expect.stringContaining("username ''") });
  });

  it("names the contradiction in the second example of the documentation it replaces", async () => {
    const example = cases.find(({ name }) => name.startsWith("the second example"))!;
    const error = await database.errorOf(createServer(example.options as Record<string, string>));
    expect(error?.message).toBe('option "tls_insecure" may not be true beside option "tls_ca_path"');
  });

  it("takes its first example, an access token as the password of an empty user name", async () => {
    const options = { host: "10.30.50.1", port: "4222", capacity: "128", username: "", password: "<token>" };
    expect(await database.errorOf(createServer(options))).toBeUndefined();
  });
});

describe("ALTER SERVER", () => {
  it("checks the options as they would be afterwards", async () => {
    const before = createServer({ tls_ca_path: "/ca", port: "4222" });
    const alter = (clause: string) => database.errorOf(before, `ALTER SERVER ${server} OPTIONS (${clause})`);
    expect(await alter("SET port '4223', ADD host 'nats'")).toBeUndefined();
    expect(await alter("SET port '0'")).toMatchObject({ code: "HV024" });
    expect(await alter("ADD tls_insecure 'yes'")).toMatchObject({ code: "HV024" });
    expect(await alter("DROP tls_ca_path, ADD tls_insecure 'yes'")).toBeUndefined();
    expect(await alter("ADD prot '4222'")).toMatchObject({ code: "HV00D", hint: 'Did you mean "port"?' });
  });
});

describe("CREATE USER MAPPING", () => {
  const inMapping = (options: Record<string, string>) => database.errorOf(createServer({}), createMapping(options));

  it("takes credentials, also a part of them", async () => {
    expect(await inMapping({})).toBeUndefined();
    expect(await inMapping({ password: "x" })).toBeUndefined();
    expect(await inMapping({ username: "me", password_path: "/pw", token: "t" })).toBeUndefined();
  });

  it("sends options of the server to the server", async () => {
    expect(await inMapping({ port: "4222" })).toMatchObject({
      code: "HV00D",
      message: 'option "port" is not allowed in a user mapping',
      hint: expect.stringContaining("ALTER SERVER"),
    });
  });

  it("suggests only what a user mapping takes", async () => {
    expect(await inMapping({ pasword: "x" })).toMatchObject({ code: "HV00D", hint: 'Did you mean "password"?' });
    expect(await inMapping({ prot: "x" })).toMatchObject({
      code: "HV00D",
      message: 'unknown option "prot"',
      hint: "Use one of the options, or drop it.",
    });
  });

  it("checks values", async () => {
    expect(await inMapping({ password_path: "relative" })).toMatchObject({ code: "HV024" });
    expect(
      await database.errorOf(
        createServer({}),
        createMapping({ token: "x" }),
        `ALTER USER MAPPING FOR CURRENT_USER SERVER ${server} OPTIONS (SET token '')`,
      ),
    ).toMatchObject({ code: "HV024" });
  });
});

describe("server and user mapping put together", () => {
  /** As whoever reads them does: the user mapping over the server. */
  const together = `SELECT hawser.nats_server_options(
      hawser.nats_options_jsonb(s.srvoptions) || hawser.nats_options_jsonb(m.umoptions)) AS options
    FROM pg_foreign_server s LEFT JOIN pg_user_mappings m ON m.srvid = s.oid WHERE s.srvname = '${server}'`;

  it("are complete, typed and with defaults", async () => {
    const { client } = database;
    await client.query("BEGIN");
    await client.query(createServer({ port: " 4223 ", tls_insecure: "Y", username: "me" }));
    await client.query(createMapping({ password: "a=b'\"\\" }));
    const { rows } = await client.query(together);
    await client.query("ROLLBACK");
    expect(rows[0].options).toEqual({
      host: "127.0.0.1",
      port: 4223,
      max_role_subscriptions: 1000,
      capacity: 128,
      tls_insecure: true,
      username: "me",
      password: "a=b'\"\\",
      notify_subject: "pgnats.postgresql.replication.status",
      replicas: 1,
      responder_timeout_ms: 5000,
    });
  });

  it("are refused while the password is missing", async () => {
    expect(await database.errorOf(createServer({ username: "me" }), together)).toMatchObject({
      code: "HV002",
      message: expect.stringContaining('"password" is missing'),
    });
  });
});

describe("the validator", () => {
  it("allows no options anywhere else", async () => {
    const refused = { code: "HV00D", message: 'option "host" is not allowed here' };
    const table = `CREATE FOREIGN TABLE t (c int OPTIONS (host 'x')) SERVER ${server}`;
    expect(await database.errorOf(`ALTER FOREIGN DATA WRAPPER ${wrapper} OPTIONS (ADD host 'x')`)).toMatchObject(
      refused,
    );
    expect(await database.errorOf(createServer({}), table)).toMatchObject(refused);
    expect(
      await database.errorOf(createServer({}), `CREATE FOREIGN TABLE t (c int) SERVER ${server} OPTIONS (host 'x')`),
    ).toMatchObject(refused);
  });

  it("serves roles that may not use the schema hawser", async () => {
    const role = `plain_${process.pid}`;
    const asRole = [
      `CREATE ROLE ${role}`,
      `GRANT USAGE ON FOREIGN DATA WRAPPER ${wrapper} TO ${role}`,
      `DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO ${role}', current_database()); END $$`,
      `SET LOCAL ROLE ${role}`,
    ];
    expect(await database.errorOf(...asRole, createServer({ host: "nats" }))).toBeUndefined();
    expect(await database.errorOf(...asRole, createServer({ host: "a b" }))).toMatchObject({ code: "HV024" });
    expect(await database.errorOf(...asRole, "SELECT hawser.nats_auth_mode('{}')")).toMatchObject({ code: "42501" });
  });

  it("takes the functions of the schema hawser from PUBLIC", async () => {
    const { rows } = await database.client.query(
      `SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a
       WHERE pronamespace = 'hawser'::regnamespace AND a.grantee = 0`,
    );
    expect(rows).toEqual([]);
  });

  it("runs nothing that the owner of the schema hawser can replace", async () => {
    const { rows } = await database.client.query(
      `SELECT prosrc AS body, prosecdef AS definer FROM pg_proc WHERE pronamespace = 'hawser_fdw'::regnamespace`,
    );
    expect(rows.length).toBeGreaterThan(5);
    for (const { body, definer } of rows) {
      expect(body).not.toMatch(/\bhawser\./);
      expect(definer).toBe(false);
    }
    const evil =
      "CREATE OR REPLACE FUNCTION hawser.nats_server_options_check(options jsonb, part text DEFAULT 'whole') RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$";
    expect(await database.errorOf(evil, createServer({ host: "nats" }))).toBeUndefined();
    expect(
      await database.errorOf(
        "DROP SCHEMA hawser, hawser_data, hawser_peer_data, hawser_bridge_data CASCADE",
        createServer({ host: "a b" }),
      ),
    ).toMatchObject({
      code: "HV024",
    });
  });

  it("cannot be led astray by a caller's search_path or quoting", async () => {
    const session = [
      "CREATE SCHEMA astray",
      "CREATE FUNCTION astray.jsonb_typeof(jsonb) RETURNS text LANGUAGE sql AS $$ SELECT 'object' $$",
      "SET LOCAL search_path = astray, pg_catalog",
      "SET LOCAL standard_conforming_strings = off",
    ];
    expect(await database.errorOf(...session, createServer({ domain: "a.b" }))).toMatchObject({ code: "HV024" });
    expect(await database.errorOf(...session, createServer({ domain: "hub" }))).toBeUndefined();
  });
});

describe("a secret", () => {
  const hidden = [
    "password",
    "nkey_seed",
    "token",
    "password_path",
    "nkey_seed_path",
    "token_path",
    "creds_path",
    "tls_key_path",
    "tls_ca_path",
    "tls_cert_path",
    "username",
  ];
  it("is each option whose value is not to be shown", () => {
    const marked = Object.entries(serverOptions).filter(([, option]) => option.hidden);
    expect(marked.map(([name]) => name).sort()).toEqual([...hidden].sort());
  });

  // Too long for each of them, no path and no seed.
  const secret = `hunter2-${"x".repeat(20_000)}`;

  it("is not in the error about its option", async () => {
    const valid = { username: "", password: "p", tls_ca_path: "/ca", tls_cert_path: "/cert", tls_key_path: "/key" };
    for (const option of hidden) {
      const error = await database.errorOf(createServer({ ...valid, [option]: secret }));
      expect(error, option).toMatchObject({ code: "HV024", detail: "Its value is not shown." });
      expect(JSON.stringify({ ...error, message: error?.message }), option).not.toContain("hunter2");
    }
  });

  it("is not in the error about an address that it was written into", async () => {
    for (const option of ["host", "patroni_url", "domain", "notify_subject", "port", "tls_insecure"]) {
      const error = await database.errorOf(createServer({ [option]: "http://me:hunter2@nats .*" }));
      expect(error).toMatchObject({ code: "HV024", detail: "Its value is not shown." });
    }
  });

  it("is not in the error about a missing or contradicting option", async () => {
    for (const option of ["password", "password_path", "tls_cert_path", "tls_key_path"]) {
      const error = await database.errorOf(createServer({ [option]: "/hunter2" }));
      expect(error?.code).toBe("HV002");
      expect(JSON.stringify({ ...error, message: error?.message })).not.toContain("hunter2");
    }
  });
});
