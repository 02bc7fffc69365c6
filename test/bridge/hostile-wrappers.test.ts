/**
 * A role that may subscribe makes something else of its own wrappers and of what they are called by: nothing of it runs as the
 * executor, ends the process, or reaches what others have registered.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Login } from "../installation/support/logins.js";
import { eventually } from "../support/eventually.js";
import { errorOf } from "./support/binding-world.js";
import { type BridgeWorld, bridgeWorld } from "./support/bridge-world.js";

let world: BridgeWorld;
let mallory: Login & { readonly client: pg.Client };
let alice: Login & { readonly client: pg.Client };
let names = 0;

beforeAll(async () => {
  world = await bridgeWorld({
    sql: `
      CREATE TABLE ran (id bigserial, what text, who text DEFAULT current_user, alone boolean DEFAULT current_setting('transaction_read_only')::boolean);
      GRANT ALL ON ran, ran_id_seq TO PUBLIC;`,
  });
  [mallory, alice] = [await world.user(), await world.user()];
  await mallory.client.query(`GRANT USAGE ON SCHEMA ${mallory.role} TO PUBLIC`);
  for (const { client } of [mallory, alice]) {
    await client.query(`
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
        AS $$INSERT INTO public.ran (what) SELECT convert_from(payload, 'UTF8') WHERE payload <> ''$$;
      CREATE FUNCTION answer(payload bytea) RETURNS bytea LANGUAGE sql AS $$SELECT convert_to(current_user, 'UTF8')$$;`);
  }
  await subscribe(alice, "alice");
});
afterAll(async () => world?.[Symbol.asyncDispose]());

interface Wrapper {
  readonly subject: string;
  /** Quoted, with its schema. */
  readonly name: string;
  readonly type: string;
  readonly signature: string;
  readonly plain: string;
}

async function wrapperOf(subject: string): Promise<Wrapper> {
  const [row] = await world.rows<{ wrapper: string; signature: string; name: string }>(
    `SELECT h.wrapper, p.oid::regprocedure::text AS signature, format('hawser_run.%I', h.wrapper) AS name
       FROM hawser_bridge_data.nats_handlers AS h JOIN pg_proc AS p ON p.proname = h.wrapper WHERE h.subject = $1`,
    [subject],
  );
  return { subject, plain: row!.wrapper, type: `hawser_run.token_${row!.wrapper.slice(-16)}`, ...row! };
}

async function subscribe(who: typeof alice, word: string, what = "capture"): Promise<string> {
  const subject = `${world.prefix}.${word}`;
  await who.client.query("SELECT nats_subscribe($1, $2::regproc)", [subject, what]);
  await world.live(subject);
  return subject;
}

async function register(who: typeof alice, what = "answer"): Promise<string> {
  const subject = `${world.prefix}.service${(names += 1)}`;
  await who.client.query("SELECT litmus_pgnats_register_responder($1, $2::regproc)", [subject, what]);
  await world.live(subject);
  return subject;
}

/** Alice's function gets what is sent now. */
async function expectAliceUntouched(): Promise<void> {
  const what = `for alice ${(names += 1)}`;
  world.nats.publish(`${world.prefix}.alice`, what);
  await eventually("alice's function has run", async () => (await whoRan(what)).length > 0);
  expect(await whoRan(what)).toEqual([alice.role]);
}

const whoRan = async (what: string) =>
  (await world.rows<{ who: string }>("SELECT who FROM ran WHERE what = $1", [what])).map(({ who }) => who);
const lettersOf = (payload: string) =>
  world.rows<{ code: string }>("SELECT error_code AS code FROM hawser_data.dead_letters WHERE payload = $1::bytea", [
    Buffer.from(payload),
  ]);
async function becomesDeadLetter(subject: string, payload: string): Promise<string> {
  world.nats.publish(subject, payload);
  await eventually("it is a dead letter", async () => (await lettersOf(payload)).length > 0);
  return (await lettersOf(payload))[0]!.code;
}

/** In one transaction, so that no check comes in between. */
async function replaced(wrapper: Wrapper, args: string, rest: string): Promise<void> {
  await mallory.client.query(`BEGIN; DROP FUNCTION ${wrapper.signature};
    CREATE FUNCTION ${wrapper.name}(p_type ${wrapper.type}, ${args}) ${rest};
    GRANT EXECUTE ON FUNCTION ${wrapper.name} TO hawser_executor; COMMIT`);
}

const batchArguments = "b bytea, c bytea, d integer[], e integer[], f text[], g text[], h text[]";
const requestArguments = "b bytea, c bytea, d text, e text";

describe("an expression that a call evaluates beside the wrapper", () => {
  it("is nothing that the owner of its type can plant", async () => {
    const wrapper = await wrapperOf(await subscribe(mallory, "planted"));
    await mallory.client.query(`
      CREATE FUNCTION evil(v bytea) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.ran (what) VALUES ('planted'); RETURN true; END$$;
      CREATE FUNCTION evil_cast(v bytea) RETURNS ${wrapper.type} LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.ran (what) VALUES ('planted'); RETURN NULL; END$$;
      CREATE CAST (bytea AS ${wrapper.type}) WITH FUNCTION ${mallory.role}.evil_cast(bytea) AS IMPLICIT`);
    expect(
      (await errorOf(mallory.client, `ALTER DOMAIN ${wrapper.type} ADD CHECK (${mallory.role}.evil(VALUE))`)).code,
    ).toBe("42809");
    world.nats.publish(wrapper.subject, "by its own type");
    await eventually("it has run", async () => (await whoRan("by its own type")).length > 0);
    expect(await whoRan("planted")).toEqual([]);
    await expectAliceUntouched();
  });

  it("is not a cursor WITH HOLD, whose query would run at COMMIT", async () => {
    await mallory.client.query(`
      CREATE FUNCTION hold() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'held by %', current_user; END$$;
      CREATE FUNCTION holds(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
      BEGIN
        IF payload = '' THEN RETURN; END IF;
        EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT ${mallory.role}.hold()';
        INSERT INTO public.ran (what) VALUES (convert_from(payload, 'UTF8'));
      END$$`);
    const subject = await subscribe(mallory, "holds", "holds");
    world.nats.publish(subject, "held");
    await eventually("it has run, or failed", async () => {
      return (await whoRan("held")).length + (await lettersOf("held")).length > 0;
    });
    expect(await lettersOf("held")).toEqual([]);
    expect(await whoRan("held")).toEqual([mallory.role]);
  });
});

describe("a wrapper in another's shape", () => {
  it("of a subscription, with the rights of its caller, is not called, and its owner is told", async () => {
    const wrapper = await wrapperOf(await subscribe(mallory, "invoker"));
    const body = "BEGIN ATOMIC SELECT 1::bigint FROM capture('shaped'); END";
    await replaced(wrapper, batchArguments, `RETURNS bigint LANGUAGE sql SECURITY INVOKER ${body}`);
    expect(await becomesDeadLetter(wrapper.subject, "stolen")).toBe("39000");
    const words = `the wrapper of ${mallory.role}.capture(bytea) was replaced`;
    expect(await world.rows("SELECT error_message FROM hawser_data.dead_letters WHERE payload = 'stolen'")).toEqual([
      { error_message: expect.stringContaining(words) },
    ]);
    expect(await whoRan("shaped")).toEqual([]);
    await expectAliceUntouched();
  });

  it("of a responder, with another result, is not called, and is answered by an error", async () => {
    const wrapper = await wrapperOf(await register(mallory));
    const returns = "RETURNS text LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC SELECT 'x' FROM answer(''); END";
    await replaced(wrapper, requestArguments, returns);
    const reply = await world.nats.request(wrapper.subject, "x", { timeout: 20_000 });
    expect(reply.headers?.get("Nats-Service-Error-Code")).toBe("503");
    await expectAliceUntouched();
  });
});

describe("hawser.add_handler by hand", () => {
  const handmade = async (subject: string, random: string) => {
    await mallory.client.query(`
      CREATE TYPE hawser_run.token_${random} AS ENUM ();
      CREATE FUNCTION hawser_run."x ${random}"(p_type hawser_run.token_${random}, ${requestArguments}) RETURNS bytea LANGUAGE sql SECURITY DEFINER
        BEGIN ATOMIC SELECT answer(c); END;
      GRANT EXECUTE ON FUNCTION hawser_run."x ${random}" TO hawser_executor`);
    return errorOf(
      mallory.client,
      `SELECT hawser.add_handler('responder', '${subject}', '${mallory.role}', 'answer', 'bytea', 'x ${random}', sha256('x'))`,
    );
  };

  it("takes no subject that another's function answers", async () => {
    const subject = await register(alice);
    expect(await handmade(subject, "0123456789abcde1")).toMatchObject({
      code: "42501",
      message: expect.stringContaining(`"${alice.role}" has registered`),
    });
    expect((await world.nats.request(subject, "x", { timeout: 20_000 })).string()).toBe(alice.role);
  });

  it("keeps no subject by a wrapper that hides for a while", async () => {
    const subject = await register(mallory);
    const { name, plain, signature } = await wrapperOf(subject);
    await mallory.client.query(`ALTER FUNCTION ${signature} RENAME TO hidden`);
    await alice.client.query("SELECT litmus_pgnats_register_responder($1, 'answer')", [subject]);
    await mallory.client.query(`ALTER FUNCTION ${signature.replace(name, "hawser_run.hidden")} RENAME TO "${plain}"`);
    await world.value("SELECT litmus_pgnats_reload_conf()");
    expect(await world.rows("SELECT FROM hawser_bridge_data.nats_handlers WHERE subject = $1", [subject])).toHaveLength(
      1,
    );
    expect((await world.nats.request(subject, "x", { timeout: 20_000 })).string()).toBe(alice.role);
  });
});

it("a function that speaks of its own wrapper as missing has its message made a dead letter", async () => {
  const subject = `${world.prefix}.speaks`;
  await mallory.client.query(`
    CREATE FUNCTION speaks(payload bytea) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE wrapper text := (SELECT proname FROM pg_proc WHERE pronamespace = 'hawser_run'::regnamespace AND proname LIKE '%.speaks on%');
    BEGIN RAISE EXCEPTION 'function % does not exist', wrapper USING ERRCODE = '42883'; END$$`);
  await mallory.client.query("SELECT nats_subscribe($1, 'speaks')", [subject]);
  await world.live(subject);
  expect(await becomesDeadLetter(subject, "spoken")).toBe("42883");
});
