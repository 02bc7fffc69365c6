/**
 * A role that may subscribe tries to get at what others have subscribed.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { proofOf, type TransactionMark, transactionMarkColumn } from "../../src/nats/bridge/executor/token.js";
import { wrapperCall, wrapperStateSql } from "../../src/nats/bridge/executor/wrapper.js";
import { install } from "../../src/operating/installation/index.js";
import type { Login } from "../installation/support/logins.js";
import { type BindingWorld, type Bound, bindingWorld, deliver, errorOf } from "./support/binding-world.js";

let world: BindingWorld;
let executor: pg.Client;
let victim: Login;
let attacker: Login;
let victimSession: pg.Client;
let attackerSession: pg.Client;
/** Subscription of the victim. */
let target: Bound;

const denied = "42501";
const quoted = pg.escapeIdentifier;
const message = [{ payload: Buffer.from("real") }];
const arguments_ =
  "p_payloads bytea, p_offsets integer[], p_lengths integer[], p_subjects text[], p_headers text[], p_ids text[]";
const forged = "'forged'::bytea, ARRAY[1], ARRAY[6], ARRAY['s'], ARRAY[NULL::text], ARRAY['i']";

beforeAll(async () => {
  world = await bindingWorld();
  [victim, attacker] = [await world.user(), await world.user()];
  [victimSession, attackerSession] = [await world.connect(victim.url), await world.connect(attacker.url)];
  executor = await world.connectExecutor();
  await world.client.query(`
    CREATE TABLE ran (payload bytea, who text DEFAULT current_user);
    GRANT INSERT ON ran TO PUBLIC;
    CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS 'INSERT INTO public.ran (payload) VALUES (payload)';
    CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS 'SELECT payload';
  `);
  await victimSession.query("SELECT nats_subscribe('victim', 'capture')");
  [target] = (await world.bound("victim")) as [Bound];
});
afterAll(async () => world?.[Symbol.asyncDispose]());

const ran = async () =>
  (await world.rows<{ payload: Buffer; who: string }>("DELETE FROM ran RETURNING *")).map(
    ({ payload, who }) => `${who}: ${payload}`,
  );
/** Version of a wrapper; null if it may not be called. */
const versionOf = async ({ wrapper, runAs }: Bound, role = runAs): Promise<string | null> =>
  (await executor.query("SELECT version FROM hawser.wrapper_version($1, $2)", [wrapper, role])).rows[0].version;
const tokenType = (wrapper: string) => `hawser_run.token_${wrapper.slice(-16)}`;

/** Each time at the end: the victim's function gets what is sent, and nothing else. */
async function expectUntouched(): Promise<void> {
  await ran();
  expect(await deliver(executor, target, message)).toBe(1);
  expect(await ran()).toEqual([`${victim.role}: real`]);
}

/** A subscription of the attacker's, whose wrapper is replaced by one that does something else, with the rights of its caller. */
async function replaced(body: string): Promise<Bound> {
  const subject = `attack.${(attacks += 1)}`;
  await attackerSession.query("SELECT nats_subscribe($1, 'capture')", [subject]);
  const [own] = (await world.bound(subject)) as [Bound];
  await attackerSession.query(
    `CREATE OR REPLACE FUNCTION hawser_run.${quoted(own.wrapper)}(p_type ${tokenType(own.wrapper)}, p_token bytea, ${arguments_})
       RETURNS bigint LANGUAGE plpgsql SECURITY INVOKER AS $attack$ BEGIN ${body} RETURN 1; END $attack$`,
  );
  return own;
}
let attacks = 0;

describe("a role that may subscribe", () => {
  it("cannot call the wrapper of another, nor change it", async () => {
    const wrapper = `hawser_run.${quoted(target.wrapper)}`;
    const signature = `${wrapper}(${tokenType(target.wrapper)}, bytea, bytea, integer[], integer[], text[], text[], text[])`;
    for (const sql of [
      `SELECT ${wrapper}(NULL::${tokenType(target.wrapper)}, 'x'::bytea, ${forged})`,
      `DROP FUNCTION ${signature}`,
      `DROP TYPE ${tokenType(target.wrapper)} CASCADE`,
      `ALTER FUNCTION ${signature} SECURITY INVOKER`,
      `GRANT EXECUTE ON FUNCTION ${signature} TO ${attacker.role}`,
      `CREATE OR REPLACE FUNCTION ${wrapper}(p_type ${tokenType(target.wrapper)}, p_token bytea, ${arguments_}) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'`,
      `ALTER FUNCTION ${signature} RENAME TO mine`,
    ]) {
      expect((await errorOf(attackerSession, sql)).code, sql).toBe(denied);
    }
    await expectUntouched();
  });

  it("reads no token and no secret, neither by itself nor as the executor", async () => {
    const own = await replaced("PERFORM FROM hawser_bridge_data.nats_handlers;");
    await expect(deliver(executor, own, message)).rejects.toMatchObject({ code: denied });
    const readable = await world.rows(
      `SELECT c.relname, r.rolname FROM pg_class AS c, pg_roles AS r
        WHERE c.relnamespace IN ('hawser_data'::regnamespace, 'hawser_peer_data'::regnamespace, 'hawser_bridge_data'::regnamespace) AND c.relkind IN ('r', 'p', 'v') AND r.rolname IN ($1, $2)
          AND has_table_privilege(r.oid, c.oid, 'SELECT')`,
      [attacker.role, world.executor],
    );
    expect(readable).toEqual([]);
  });

  it("calls the wrapper of another as the executor, and without the token nothing runs", async () => {
    const own = await replaced(`
      PERFORM hawser_run.${quoted(target.wrapper)}(NULL::${tokenType(target.wrapper)}, p_token, ${forged});
      PERFORM hawser_run.${quoted(target.wrapper)}(NULL, NULL, ${forged});`);
    expect(await deliver(executor, own, message)).toBe(1);
    expect(await ran()).toEqual([]);
  });

  it("is found out when its wrapper would run as its caller, before and after the call", async () => {
    const before = await versionOf(target);
    expect(before).toMatch(/^\d+(:\d+){4}$/);
    expect(await versionOf(target)).toBe(before);
    expect(await versionOf(target, attacker.role)).toBeNull();
    await attackerSession.query("SELECT nats_subscribe('turncoat', 'capture')");
    const [own] = (await world.bound("turncoat")) as [Bound];
    const signature = `hawser_run.${quoted(own.wrapper)}(${tokenType(own.wrapper)}, bytea, bytea, integer[], integer[], text[], text[], text[])`;
    const first = await versionOf(own);
    await attackerSession.query(`ALTER FUNCTION ${signature} SECURITY INVOKER`);
    expect(await versionOf(own)).toBeNull();
    await attackerSession.query(`ALTER FUNCTION ${signature} SECURITY DEFINER`);
    expect(await versionOf(own)).not.toBe(first);
  });

  it("is found out when its wrapper returns something else, that of a subscription or of a responder", async () => {
    const kinds = {
      subscription: { bind: "nats_subscribe($1, 'capture')", takes: arguments_ },
      responder: {
        bind: "litmus_pgnats_register_responder($1, 'answer')",
        takes: "p_payload bytea, p_subject text, p_reply text",
      },
    };
    for (const [kind, returns, isFoundOut] of [
      ["subscription", "bigint", false],
      ["subscription", "text", true],
      ["subscription", "SETOF bigint", true],
      ["subscription", "SETOF text", true],
      ["responder", "bytea", false],
      ["responder", "text", true],
      ["responder", "SETOF bytea", true],
    ] as const) {
      const subject = `shape.${(attacks += 1)}`;
      const { bind, takes } = kinds[kind];
      await attackerSession.query(`SELECT ${bind}`, [subject]);
      const [own] = (await world.bound(subject)) as [Bound];
      const name = `hawser_run.${quoted(own.wrapper)}`;
      await attackerSession.query(`DROP FUNCTION ${name};
        CREATE FUNCTION ${name}(p_type ${tokenType(own.wrapper)}, p_token bytea, ${takes}) RETURNS ${returns}
          LANGUAGE sql SECURITY DEFINER AS 'SELECT NULL::${returns.replace("SETOF ", "")}'`);
      expect((await versionOf(own)) === null, `${kind} ${returns}`).toBe(isFoundOut);
    }
  });

  it("has nothing of its own evaluated that it has put there between the check and the call", async () => {
    const types = ["bytea", "integer[]", "integer[]", "text[]", "text[]", "text[]"];
    const raises = "AS $attack$ BEGIN RAISE EXCEPTION 'evaluated'; END $attack$";
    await attackerSession.query(`
      CREATE FUNCTION ${attacker.role}.evil(v bytea) RETURNS boolean LANGUAGE plpgsql ${raises};
      CREATE FUNCTION ${attacker.role}.step(s bigint, t anyenum, a bytea, ${arguments_}) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
      CREATE FUNCTION ${attacker.role}.final(s bigint) RETURNS bigint LANGUAGE plpgsql ${raises}`);
    const another = (returns: string) => (name: string, type: string) =>
      `CREATE FUNCTION ${name}(p_type ${type}, p_token bytea, ${arguments_}) RETURNS ${returns} ${raises}`;
    for (const made of [
      another("bigint LANGUAGE plpgsql SECURITY INVOKER"),
      // The planner computes calls of these where their arguments are constants.
      another("bigint LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER"),
      another("SETOF bigint LANGUAGE plpgsql IMMUTABLE SECURITY DEFINER"),
      (name: string, type: string) => `
        DROP TYPE ${type};
        CREATE DOMAIN ${type} AS bytea CHECK (${attacker.role}.evil(VALUE));
        CREATE FUNCTION ${name}(p_type ${type}, p_token bytea, ${arguments_}) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::bigint'`,
      // Of no rows it has a result, too.
      (name: string, type: string) =>
        `CREATE AGGREGATE ${name}(${type}, bytea, ${arguments_.replace(/p_\w+ /g, "")}) (sfunc = ${attacker.role}.step, stype = bigint, initcond = '0', finalfunc = ${attacker.role}.final)`,
    ]) {
      const subject = `between.${(attacks += 1)}`;
      await attackerSession.query("SELECT nats_subscribe($1, 'capture')", [subject]);
      const [own] = (await world.bound(subject)) as [Bound];
      const state = await executor.query<{ version: string }>(wrapperStateSql(own));
      const { version } = state.rows[0]!;
      const call = async () => {
        await executor.query("BEGIN");
        try {
          const mark = await executor.query<TransactionMark>(`SELECT ${transactionMarkColumn}`);
          const proof = proofOf(own.token, mark.rows[0]!);
          const values = [own.id, proof, Buffer.from("real"), "{1}", "{4}", "{s}", "{NULL}", "{i}", version];
          return (await executor.query<{ result: string }>(wrapperCall(own, types), values)).rows;
        } finally {
          await executor.query("COMMIT");
        }
      };
      expect(await call()).toEqual([{ result: "1", version }]);
      expect(await ran()).toEqual([`${attacker.role}: real`]);
      const name = `hawser_run.${quoted(own.wrapper)}`;
      await attackerSession.query(`DROP FUNCTION ${name}; ${made(name, tokenType(own.wrapper))};
        GRANT EXECUTE ON ROUTINE ${name} TO hawser_executor`);
      const outcome = await call().catch((error: pg.DatabaseError) => error.code);
      expect([[], "42803"], made(name, "")).toContainEqual(outcome);
    }
  });

  it("is found out also behind another function that has the name and the token of its wrapper", async () => {
    const own = await replaced("NULL;");
    expect(await versionOf(own)).toBeNull();
    await attackerSession.query(
      `CREATE FUNCTION hawser_run.${quoted(own.wrapper)}(p_token ${tokenType(own.wrapper)}, p_decoy text)
         RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::bigint'`,
    );
    expect(await versionOf(own)).toBeNull();
  });

  it("has nothing deferred run by another's wrapper, without its token", async () => {
    await attackerSession.query(`
      CREATE TABLE ${attacker.role}.bait (a integer);
      GRANT USAGE ON SCHEMA ${attacker.role} TO PUBLIC;
      GRANT INSERT ON ${attacker.role}.bait TO PUBLIC;
      CREATE FUNCTION ${attacker.role}.spring() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.ran VALUES ('sprung'); RETURN NULL; END$$;
      CREATE CONSTRAINT TRIGGER spring AFTER INSERT ON ${attacker.role}.bait DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION ${attacker.role}.spring();
    `);
    const own = await replaced(`
      INSERT INTO ${attacker.role}.bait VALUES (1);
      PERFORM hawser_run.${quoted(target.wrapper)}(NULL::${tokenType(target.wrapper)}, p_token, ${forged});`);
    await deliver(executor, own, message);
    expect(await ran()).toEqual([`${world.executor}: sprung`]);
  });

  it("cannot enter another's wrapper as a handler of its own", async () => {
    await attackerSession.query("BEGIN");
    const error = await errorOf(
      attackerSession,
      "SELECT hawser.add_handler('subscription', 'forged', 's', 'f', 'bytea', $1, decode(repeat('00', 32), 'hex'))",
      [target.wrapper],
    );
    await attackerSession.query("ROLLBACK");
    expect(error.code).toBe("22023");
    const asItIs = "SELECT hawser.add_handler('subscription', 'forged', 'public', 'capture', 'bytea', $1, sha256('x'))";
    expect((await errorOf(attackerSession, asItIs, [target.wrapper])).code).toBe("23505");
    expect(
      (await errorOf(attackerSession, "SELECT hawser.add_handler('subscription', 'x', 's', 'f', 'bytea', 'none', 'x')"))
        .code,
    ).toBe("22023");
    for (const sql of [
      "DELETE FROM hawser_bridge_data.nats_handlers",
      "UPDATE hawser_bridge_data.nats_handlers SET subject = '>'",
      "INSERT INTO hawser_bridge_data.nats_handlers (kind) VALUES ('subscription')",
    ]) {
      expect((await errorOf(attackerSession, sql)).code).toBe(denied);
    }
    await expectUntouched();
  });

  it("catches no call with functions of the same name, and creates none ambiguous", async () => {
    const name = `hawser_run.${quoted(target.wrapper)}`;
    const own = "LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.ran VALUES ('caught'); RETURN 1; END$$";
    for (const types of [
      "a text, z text, b text, c text, d text, e text, f text, g text",
      "a bytea, z bytea, b bytea, c integer[], d integer[], e text[], f text[], g text[]",
      "a bytea, z bytea, b bytea, c integer[], d integer[], e text[], f text[], g text[], h integer DEFAULT 1",
      "a anyelement, z bytea, b bytea, c integer[], d integer[], e text[], f text[], g text[], h integer DEFAULT 1",
      "a bytea, z bytea, b bytea, c integer[], d integer[], e text[], f text[], VARIADIC g text[]",
    ]) {
      await attackerSession
        .query(`CREATE FUNCTION ${name}(${types}) RETURNS bigint ${own}`)
        .catch((error: pg.DatabaseError) => expect(error.code, types).toBe("42723"));
    }
    await attackerSession
      .query(`GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA hawser_run TO hawser_executor`)
      .catch(() => undefined);
    const stolen = `CREATE FUNCTION ${name}(a ${tokenType(target.wrapper)}, z bytea, b bytea, c integer[], d integer[], e text[], f text[], g text[], h integer DEFAULT 1) RETURNS bigint ${own}`;
    expect((await errorOf(attackerSession, stolen)).code).toBe(denied);
    expect(
      (await errorOf(attackerSession, stolen.replace(tokenType(target.wrapper), `${tokenType(target.wrapper)}[]`)))
        .code,
    ).toBe(denied);
    await expectUntouched();
    expect((await world.bound("victim")).length).toBeGreaterThan(1);
    expect(await world.subscriptions()).toContain("victim public.capture(bytea)");
    expect((await world.subscriptions()).filter((line) => line.startsWith("victim"))).toHaveLength(1);
    // Nor can it keep the victim from ending it, and beginning anew.
    await victimSession.query("SELECT nats_unsubscribe('victim', 'capture')");
    expect((await world.subscriptions()).filter((line) => line.startsWith("victim"))).toEqual([]);
    await victimSession.query("SELECT nats_subscribe('victim', 'capture')");
    [target] = (await world.bound("victim")) as [Bound];
    await expectUntouched();
  });

  it("does not keep others from subscribing with functions named as those that settle", async () => {
    const settles = await world.rows<{ name: string }>(
      "SELECT quote_ident(proname) AS name FROM pg_proc WHERE pronamespace = 'hawser_run'::regnamespace AND pg_get_userbyid(proowner) = $1 AND proname ~ '^settle '",
      [victim.role],
    );
    expect(settles).toHaveLength(1);
    await attackerSession.query(
      `CREATE FUNCTION hawser_run.${settles[0]!.name}(a integer DEFAULT 1) RETURNS void LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('settled')$$`,
    );
    await victimSession.query("SELECT nats_subscribe('second', 'capture')");
    const [second] = (await world.bound("second")) as [Bound];
    await deliver(executor, second, message);
    expect(await ran()).toEqual([`${victim.role}: real`]);
    await expectUntouched();
  });

  it("puts nothing between by what is on the path of who subscribes", async () => {
    await attackerSession.query(`
      CREATE FUNCTION ${attacker.role}.substring(bytea, integer, integer) RETURNS bytea LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('path'); SELECT $1$$;
      CREATE FUNCTION ${attacker.role}.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('path'); SELECT $1$$;
      CREATE FUNCTION ${attacker.role}.unnest(integer[]) RETURNS SETOF integer LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('path'); SELECT 1$$;
      CREATE FUNCTION ${attacker.role}.current_schemas(boolean) RETURNS name[] LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('path'); SELECT '{}'::name[]$$;
      CREATE FUNCTION ${attacker.role}.same(bytea, bytea) RETURNS boolean LANGUAGE sql AS $$INSERT INTO public.ran VALUES ('path'); SELECT true$$;
      CREATE OPERATOR ${attacker.role}.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = ${attacker.role}.same);
    `);
    await victimSession.query(`SET search_path = ${attacker.role}, pg_catalog, public`);
    await victimSession.query("SELECT public.nats_subscribe('path', 'public.capture')");
    await victimSession.query("RESET search_path");
    const [bound] = (await world.bound("path")) as [Bound];
    await deliver(executor, bound, message);
    expect(await deliver(executor, { ...bound, token: Buffer.alloc(32) }, message)).toBe(0);
    expect(await ran()).toEqual([`${victim.role}: real`]);
  });

  it("has no wrapper run as another role", async () => {
    await attackerSession.query("SELECT nats_subscribe('mine', 'capture')");
    const [own] = (await world.bound("mine")) as [Bound];
    const signature = `hawser_run.${quoted(own.wrapper)}(${tokenType(own.wrapper)}, bytea, bytea, integer[], integer[], text[], text[], text[])`;
    for (const owner of [victim.role, "hawser_owner", "postgres"]) {
      expect((await errorOf(attackerSession, `ALTER FUNCTION ${signature} OWNER TO ${owner}`)).code).toBe(denied);
    }
    for (const role of [victim.role, "hawser_owner", world.executor, "hawser_bridge"]) {
      expect((await errorOf(attackerSession, `SET ROLE ${role}`)).code).toBe(denied);
    }
  });

  it("cannot become another role as the executor", async () => {
    for (const role of [victim.role, attacker.role, "hawser_owner", "hawser_bridge", "hawser_nats", "postgres"]) {
      expect((await errorOf(executor, `SET ROLE ${role}`)).code, role).toBe(denied);
    }
  });

  it("enters no wrapper of its own under names that its function does not have", async () => {
    await attackerSession.query("SELECT nats_subscribe('named', 'capture')");
    const [own] = (await world.bound("named")) as [Bound];
    await world.client.query("DELETE FROM hawser_bridge_data.nats_handlers WHERE wrapper = $1", [own.wrapper]);
    const enter = "SELECT hawser.add_handler('subscription', 'named', $2, $3, $4, $1, sha256('x'))";
    for (const names of [
      ["public", "x".repeat(1_000_000), "bytea"],
      [victim.role, "capture", "bytea"],
      ["public", "capture", "bytea, text"],
    ]) {
      expect((await errorOf(attackerSession, enter, [own.wrapper, ...names])).code).toBe("22023");
    }
    await attackerSession.query(enter, [own.wrapper, "public", "capture", "bytea"]);
  });

  it("delays nobody with the entry of a wrapper that is gone, and a transaction that it leaves open", async () => {
    await attackerSession.query("SELECT nats_subscribe('renamed', 'capture')");
    await victimSession.query("SELECT nats_subscribe('ended', 'capture')");
    const [own] = (await world.bound("renamed")) as [Bound];
    await attackerSession.query(`ALTER TYPE ${tokenType(own.wrapper)} RENAME TO gone`);
    await attackerSession.query("BEGIN");
    await attackerSession.query("SELECT hawser.prune_handlers()");
    try {
      await victimSession.query("SET lock_timeout = '60s'");
      await victimSession.query("SELECT nats_unsubscribe('ended', 'capture')");
      await world.client.query("BEGIN; SET LOCAL lock_timeout = '60s'; SELECT hawser.prune_handlers(); COMMIT");
    } finally {
      await attackerSession.query("ROLLBACK");
      await victimSession.query("RESET lock_timeout");
    }
    await world.client.query("SELECT hawser.prune_handlers()");
    expect(
      await world.rows("SELECT FROM hawser_bridge_data.nats_handlers WHERE subject IN ('renamed', 'ended')"),
    ).toEqual([]);
  });

  it("makes no header of what it sets as the id of the message that is handled", async () => {
    const next = async (id: string) => {
      await world.client.query("SELECT set_config('hawser.message', $1, false)", [id]);
      return (await world.rows<{ id: string | null }>("SELECT hawser.next_message_id() AS id"))[0]!.id;
    };
    for (const hostile of ["a\r\nNats-Rollup: all", "a b", "é", "", "x".repeat(101), "a 9999999999", "a 1\n"]) {
      expect(await next(hostile), hostile).toBeNull();
    }
    expect([await next("V1StGXR8_Z5jdHi6.B-my.1a"), await next("a 1"), await next("a 999999999")]).toEqual([
      "V1StGXR8_Z5jdHi6.B-my.1a.1",
      "a.2",
      "a.1000000000",
    ]);
    await world.client.query("RESET hawser.message");
  });

  it("does not keep others from ending a subscription by what depends on its wrapper", async () => {
    await victimSession.query("SELECT nats_subscribe('held', 'capture')");
    const [held] = (await world.bound("held")) as [Bound];
    await attackerSession.query(
      `CREATE FUNCTION ${attacker.role}.hold() RETURNS bigint LANGUAGE sql
         BEGIN ATOMIC SELECT hawser_run.${quoted(held.wrapper)}(NULL, NULL, ${forged}); END`,
    );
    await victimSession.query("SELECT nats_unsubscribe('held', 'capture')");
    expect(await world.bound("held")).toEqual([]);
  });

  it("delays only those who change the same subject, with a transaction that it leaves open", async () => {
    await attackerSession.query("BEGIN");
    await attackerSession.query("SELECT FROM hawser.lock_handlers('subscription', 'open')");
    await attackerSession.query("SELECT nats_subscribe('open', 'capture')");
    try {
      await victimSession.query("SET lock_timeout = '200ms'");
      expect((await errorOf(victimSession, "SELECT nats_subscribe('open', 'capture')")).code).toBe("55P03");
      // Others may have locks for a moment; the attacker has its own for longer than that.
      await victimSession.query("SET lock_timeout = '60s'");
      await victimSession.query("SELECT nats_subscribe('other', 'capture')");
      await victimSession.query("SELECT nats_unsubscribe('other', 'capture')");
      await world.client.query("SET lock_timeout = '60s'");
      await world.client.query("SELECT hawser.prune_handlers()");
      await world.client.query("SELECT FROM hawser_bridge_data.nats_handlers");
    } finally {
      await attackerSession.query("ROLLBACK");
      await victimSession.query("RESET lock_timeout");
      await world.client.query("RESET lock_timeout");
    }
  });

  it("can change the executor's password and settings as the executor; `hawser init` puts them right, and is not held up", async () => {
    const password = async () =>
      (
        await world.rows<{ p: string }>("SELECT rolpassword AS p FROM pg_authid WHERE rolname = $1", [world.executor])
      )[0]!.p;
    const settings = () =>
      world.rows("SELECT setconfig FROM pg_db_role_setting WHERE setrole = $1::regrole", [world.executor]);
    const own = await replaced(`
      EXECUTE format('ALTER ROLE %I PASSWORD ''mine''', current_user);
      EXECUTE format('ALTER ROLE %I SET datestyle = ''SQL, DMY''', current_user);
      EXECUTE format('ALTER ROLE %I IN DATABASE %I SET datestyle = ''SQL, DMY''', current_user, current_database());`);
    const before = await password();
    await deliver(executor, own, message);
    const changed = await password();
    expect(changed).not.toBe(before);
    expect(await settings()).toHaveLength(2);
    await attackerSession.query("BEGIN; SELECT nats_subscribe('init', 'capture')");
    try {
      expect(await install({ databaseUrl: world.database.url })).toMatchObject({ missingPrivileges: [] });
    } finally {
      await attackerSession.query("ROLLBACK");
    }
    expect([before, changed]).not.toContain(await password());
    expect(await settings()).toEqual([]);
  });
});

describe("a superuser who subscribes", () => {
  it("has a wrapper whose every part is theirs, or the function that was named", async () => {
    await world.client.query("SELECT nats_subscribe('super', 'capture')");
    const [bound] = (await world.bound("super")) as [Bound];
    expect(
      await world.rows(
        `SELECT r.proname AS name, pg_get_userbyid(r.proowner) AS owner
           FROM pg_proc AS w JOIN pg_depend AS d ON d.objid = w.oid AND d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass
           JOIN pg_proc AS r ON r.oid = d.refobjid WHERE w.proname = $1 ORDER BY 1`,
        [bound.wrapper],
      ),
    ).toEqual([
      { name: "capture", owner: "postgres" },
      { name: expect.stringMatching(/^settle [0-9a-f]{16}$/), owner: "postgres" },
    ]);
    await attackerSession.query(
      "CREATE FUNCTION hawser_run.\"settle mine\"() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET CONSTRAINTS ALL IMMEDIATE; END'",
    );
    expect((await errorOf(attackerSession, 'ALTER FUNCTION hawser_run."settle mine"() OWNER TO postgres')).code).toBe(
      denied,
    );
    await world.client.query("SELECT nats_unsubscribe('super', 'capture')");
  });
});
