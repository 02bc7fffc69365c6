/**
 * Wrappers of subscribed functions, called as the executor calls them.
 */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ask, type BindingWorld, type Bound, bindingWorld, deliver, errorOf } from "./support/binding-world.js";

let world: BindingWorld;
let client: pg.Client;
let executor: pg.Client;

beforeAll(async () => {
  world = await bindingWorld();
  client = world.client;
  executor = await world.connectExecutor();
  await client.query(`
    CREATE TABLE seen (id bigserial, payload bytea, subject text, headers jsonb, who text DEFAULT current_user, message text);
    GRANT ALL ON seen, seen_id_seq TO PUBLIC;
    CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql
      AS $$INSERT INTO public.seen (payload, message) VALUES (payload, current_setting('hawser.message', true))$$;
    CREATE FUNCTION capture_all(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql
      AS 'INSERT INTO public.seen (payload, subject, headers) VALUES (payload, subject, headers)';
    CREATE FUNCTION echo(payload bytea) RETURNS bytea LANGUAGE sql AS 'INSERT INTO public.seen (payload) VALUES (payload); SELECT payload';
    CREATE FUNCTION shout(payload text, subject text, reply_to text) RETURNS text LANGUAGE sql AS $$SELECT upper(payload) || ' ' || subject || ' ' || reply_to$$;
    CREATE FUNCTION pretends(payload bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$BEGIN PERFORM public.echo(payload); RETURN payload; END$$;
    SELECT nats_subscribe('w.order', 'capture');
  `);
});
afterAll(async () => world?.[Symbol.asyncDispose]());

/** Subscribes, or registers, and gives the wrapper. */
async function bind(statement: string, subject: string, session = client): Promise<Bound> {
  await session.query(statement);
  return (await world.bound(subject)).at(-1)!;
}

const seen = async () => {
  const rows = await world.rows<{ payload: Buffer }>("DELETE FROM seen RETURNING *");
  return rows.map(({ payload, ...rest }) => ({ ...rest, payload: payload.toString() }));
};
const bytes = (...texts: string[]) => texts.map((text) => ({ payload: Buffer.from(text) }));
const wrong = { token: Buffer.alloc(32) };

describe("the wrapper of a subscription", () => {
  it("calls the function for each message in order, also for empty payloads, and says how many", async () => {
    const [bound] = await world.bound("w.order");
    expect(await deliver(executor, bound!, bytes("1", "", "ä3", "4"))).toBe(4);
    expect((await seen()).map(({ payload }) => payload)).toEqual(["1", "", "ä3", "4"]);
    expect(await deliver(executor, bound!, [])).toBe(0);
    expect(await seen()).toEqual([]);
  });

  it("keeps a thousand messages in order", async () => {
    const [bound] = await world.bound("w.order");
    const texts = Array.from({ length: 1000 }, (_, n) => `${n}`);
    expect(await deliver(executor, bound!, bytes(...texts))).toBe(1000);
    expect(
      (await world.rows<{ p: string }>("SELECT convert_from(payload, 'UTF8') AS p FROM seen ORDER BY id")).map(
        ({ p }) => p,
      ),
    ).toEqual(texts);
    await client.query("TRUNCATE seen");
  });

  it("passes subject and headers, and says which message is being handled", async () => {
    const all = await bind("SELECT nats_subscribe('w.all', 'capture_all')", "w.all");
    await deliver(executor, all, [
      { payload: Buffer.from("a"), subject: "w.all", headers: '{"A": ["1", "2"]}' },
      { payload: Buffer.from("b"), subject: "w.b" },
    ]);
    expect(await seen()).toMatchObject([
      { payload: "a", subject: "w.all", headers: { A: ["1", "2"] } },
      { payload: "b", subject: "w.b", headers: null },
    ]);
    const [one] = await world.bound("w.order");
    await deliver(executor, one!, [{ payload: Buffer.from("x"), id: "id-7" }]);
    expect(await seen()).toMatchObject([{ message: "id-7" }]);
  });

  it("runs nothing without its token, and says so", async () => {
    const [bound] = await world.bound("w.order");
    expect(await deliver(executor, { ...bound!, ...wrong }, bytes("forged"))).toBe(0);
    expect(await deliver(executor, { ...bound!, token: Buffer.alloc(0) }, bytes("forged"))).toBe(0);
    expect(await seen()).toEqual([]);
  });

  it("runs as the role that subscribed, also one that was set by SET ROLE", async () => {
    const [login, other] = [await world.user(), await world.user()];
    await client.query(`GRANT ${other.role} TO ${login.role}`);
    const session = await world.connect(login.url);
    await session.query(`SET ROLE ${other.role}`);
    const bound = await bind("SELECT nats_subscribe('w.role', 'capture')", "w.role", session);
    expect(bound.runAs).toBe(other.role);
    await deliver(executor, bound, bytes("x"));
    expect(await seen()).toMatchObject([{ who: other.role }]);
    // By membership it may be ended, too.
    await session.query("RESET ROLE");
    await session.query("SELECT nats_unsubscribe('w.role', 'capture')");
    expect(await world.bound("w.role")).toEqual([]);
  });

  it("has the path of the role that subscribed, with pg_temp last", async () => {
    const user = await world.user();
    const session = await world.connect(user.url);
    await client.query(`CREATE SCHEMA "Odd ""one"; GRANT USAGE ON SCHEMA "Odd ""one" TO PUBLIC`);
    await session.query(`SET search_path = pg_temp, "Odd ""one", nowhere, "$user", public`);
    await session.query("CREATE TEMP TABLE t (a integer)");
    await session.query(
      `CREATE FUNCTION ${user.role}.path(payload bytea) RETURNS void LANGUAGE sql
         AS $$INSERT INTO public.seen (payload, subject) VALUES (payload, current_setting('search_path'))$$`,
    );
    const bound = await bind("SELECT nats_subscribe('w.path', 'path(bytea)'::regprocedure)", "w.path", session);
    await deliver(executor, bound, bytes("x"));
    expect(await seen()).toMatchObject([{ subject: `"Odd ""one", ${user.role}, public, pg_temp` }]);
  });

  it("runs what is deferred as its owner, constraints and triggers", async () => {
    const user = await world.user();
    const session = await world.connect(user.url);
    await session.query(`
      CREATE TABLE ${user.role}.parent (id text PRIMARY KEY);
      CREATE TABLE ${user.role}.child (id text REFERENCES ${user.role}.parent DEFERRABLE INITIALLY DEFERRED);
      CREATE FUNCTION ${user.role}.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.seen (payload, message) VALUES (convert_to(NEW.id, 'UTF8'), current_setting('hawser.message', true)); RETURN NULL; END$$;
      CREATE CONSTRAINT TRIGGER note AFTER INSERT ON ${user.role}.child DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION ${user.role}.note();
      CREATE FUNCTION ${user.role}.save(payload bytea) RETURNS void LANGUAGE sql AS $$
        INSERT INTO ${user.role}.child VALUES (convert_from(payload, 'UTF8'));
        INSERT INTO ${user.role}.parent SELECT convert_from(payload, 'UTF8') WHERE payload <> 'orphan' $$;
    `);
    const bound = await bind(`SELECT nats_subscribe('w.deferred', '${user.role}.save')`, "w.deferred", session);
    expect(await deliver(executor, bound, bytes("a", "b"))).toBe(2);
    expect(await seen()).toMatchObject([
      { payload: "a", who: user.role, message: "" },
      { payload: "b", who: user.role, message: "" },
    ]);
    await expect(deliver(executor, bound, bytes("c", "orphan"))).rejects.toMatchObject({ code: "23503" });
    expect(await world.rows(`SELECT id FROM ${user.role}.child ORDER BY 1`)).toEqual([{ id: "a" }, { id: "b" }]);
  });

  it("reaches the very function among those of its name, and the one that replaces it", async () => {
    await client.query(`
      CREATE FUNCTION twin(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO public.seen (payload) VALUES ('one')$$;
      CREATE FUNCTION twin(payload text) RETURNS void LANGUAGE sql AS $$INSERT INTO public.seen (payload) VALUES ('text')$$;
      CREATE FUNCTION twin(payload bytea, subject text) RETURNS void LANGUAGE sql AS $$INSERT INTO public.seen (payload) VALUES ('two')$$;
    `);
    const bound = await bind("SELECT nats_subscribe('w.twin', 'twin(bytea)'::regprocedure)", "w.twin");
    await deliver(executor, bound, bytes("x"));
    await client.query(
      "CREATE OR REPLACE FUNCTION twin(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO public.seen (payload) VALUES ('new')$$",
    );
    await deliver(executor, bound, bytes("x"));
    expect((await seen()).map(({ payload }) => payload)).toEqual(["one", "new"]);
  });

  it("is not made if a call would reach another function, or could not tell them apart", async () => {
    await client.query(`
      CREATE FUNCTION vague(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT';
      CREATE FUNCTION vague(payload bytea, more integer DEFAULT 1) RETURNS void LANGUAGE sql AS 'SELECT';
    `);
    expect((await errorOf(client, "SELECT nats_subscribe('w.vague', 'vague(bytea)'::regprocedure)")).code).toMatch(
      /^42(725|883)$/,
    );
    expect(await world.bound("w.vague")).toEqual([]);
  });
});

describe("the definition of a wrapper", () => {
  it("makes the same one again, as the restoring of a dump does", async () => {
    await client.query(`CREATE SCHEMA "odd "".$$ 100% schema"`);
    const fn = `"odd "".$$ 100% schema"."f'n\\"`;
    await client.query(
      `CREATE FUNCTION ${fn}(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS 'INSERT INTO public.seen (payload, headers) VALUES (payload, headers)'`,
    );
    await client.query("SELECT nats_subscribe($1, $2::regproc)", [`d.o'"$$.*`, fn]);
    const [bound] = (await world.bound(`d.o'"$$.*`)) as [Bound];
    const [made] = await world.rows<{ name: string; text: string }>(
      "SELECT oid::regprocedure::text AS name, pg_get_functiondef(oid) AS text FROM pg_proc WHERE proname = $1",
      [bound.wrapper],
    );
    await client.query(`DROP FUNCTION ${made!.name}`);
    expect((await world.subscriptions()).filter((line) => line.startsWith("d."))).toEqual([]);
    await client.query(made!.text);
    await client.query(`GRANT EXECUTE ON FUNCTION ${made!.name} TO hawser_executor`);
    expect((await world.subscriptions()).filter((line) => line.startsWith("d."))).toHaveLength(1);
    expect(await deliver(executor, bound, [{ payload: Buffer.from("x"), headers: '{"A": "1"}' }])).toBe(1);
    expect(await seen()).toMatchObject([{ payload: "x", headers: { A: "1" } }]);
    expect(await deliver(executor, { ...bound, ...wrong }, bytes("x"))).toBe(0);
    expect((await errorOf(client, `DROP FUNCTION ${fn}`)).code).toBe("2BP01");
  });
});

describe("the wrapper of a responder", () => {
  it("answers in both forms", async () => {
    const echo = await bind("SELECT litmus_pgnats_register_responder('r.echo', 'echo')", "r.echo");
    expect(await ask(executor, echo, Buffer.from([0, 255]))).toEqual(Buffer.from([0, 255]));
    expect(await ask(executor, echo, Buffer.alloc(0))).toEqual(Buffer.alloc(0));
    await seen();
    const shout = await bind("SELECT litmus_pgnats_register_responder('r.shout', 'shout')", "r.shout");
    expect((await ask(executor, shout, Buffer.from("a"), "r.shout", "_INBOX.1"))?.toString()).toBe(
      "A r.shout _INBOX.1",
    );
    await expect(ask(executor, shout, Buffer.from([255]))).rejects.toMatchObject({ code: "22021" });
  });

  it("runs nothing without its token, also if the function says that it is immutable", async () => {
    for (const fn of ["echo", "pretends"]) {
      const bound = await bind(`SELECT litmus_pgnats_register_responder('r.${fn}', '${fn}')`, `r.${fn}`);
      expect(await ask(executor, { ...bound, ...wrong }, Buffer.from("forged"))).toBeNull();
      expect(await seen(), fn).toEqual([]);
      expect((await ask(executor, bound, Buffer.from("real")))?.toString()).toBe("real");
      expect(
        (await seen()).map(({ payload }) => payload),
        fn,
      ).toEqual(["real"]);
    }
  });
});

describe("a subscribed function", () => {
  it("cannot be dropped without CASCADE; with it the subscription is gone at once, and its row when they are pruned", async () => {
    await client.query("SELECT FROM hawser.prune_handlers()");
    await client.query("CREATE FUNCTION doomed(payload bytea) RETURNS void LANGUAGE sql AS 'SELECT'");
    const { wrapper } = await bind("SELECT nats_subscribe('w.doomed.*', 'doomed')", "w.doomed.*");
    expect(wrapper).toMatch(/^public\.doomed on w\.doomed\.\* [0-9a-f]{16}$/);
    expect(await errorOf(client, "DROP FUNCTION doomed")).toMatchObject({
      code: "2BP01",
      detail: expect.stringContaining(`function hawser_run."${wrapper}"`),
    });
    const listener = await world.connect(world.database.url);
    const told: (string | undefined)[] = [];
    listener.on("notification", ({ payload }) => told.push(payload));
    await listener.query("LISTEN hawser_nats_handlers");
    await client.query("DROP FUNCTION doomed CASCADE");
    await listener.query("SELECT");
    expect(told).toEqual(["{}"]);
    expect((await world.subscriptions()).filter((line) => line.startsWith("w.doomed"))).toEqual([]);
    const [{ rows }, pruned] = [
      await client.query("SELECT subject FROM hawser_bridge_data.nats_handlers WHERE subject = 'w.doomed.*'"),
      await client.query("SELECT pruned FROM hawser.prune_handlers()"),
    ];
    expect(rows).toHaveLength(1);
    expect(pruned.rows).toEqual([{ pruned: 1 }]);
    // What CASCADE has left goes with the next call of the same role.
    await client.query("SELECT nats_subscribe('w.after', 'capture_all')");
    expect(
      await world.rows(
        "SELECT typname FROM pg_type AS t WHERE typnamespace = 'hawser_run'::regnamespace AND typtype = 'e' AND NOT EXISTS (SELECT FROM pg_proc WHERE proargtypes[0] = t.oid)",
      ),
    ).toEqual([]);
  });

  it("goes with DROP OWNED BY, and changes whom it runs as with REASSIGN OWNED", async () => {
    const [one, other] = [await world.user(), await world.user()];
    const session = await world.connect(one.url);
    const bound = await bind("SELECT nats_subscribe('w.owned', 'public.capture')", "w.owned", session);
    await client.query(`REASSIGN OWNED BY ${one.role} TO ${other.role}`);
    expect(await world.bound("w.owned")).toMatchObject([{ runAs: other.role }]);
    expect(await deliver(executor, bound, bytes("x"))).toBe(1);
    expect(await seen()).toMatchObject([{ who: other.role }]);
    await client.query(`DROP OWNED BY ${other.role}`);
    expect(await world.bound("w.owned")).toEqual([]);
    expect((await world.subscriptions()).filter((line) => line.startsWith("w.owned"))).toEqual([]);
  });

  it("is kept by nothing that pg_upgrade refuses: a column of a type such as regproc", async () => {
    expect(
      await world.rows(
        `SELECT attrelid::regclass, attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_type AS t ON t.oid = a.atttypid
          WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('hawser', 'hawser_data', 'hawser_peer_data', 'hawser_bridge_data', 'hawser_run', 'pgnats'))
            AND c.relkind IN ('r', 'm', 'i') AND attnum > 0 AND (t.typname ~ '^_?reg' AND t.typname <> '_regtype' OR t.typname IN ('oid', 'oidvector'))`,
      ),
    ).toEqual([]);
  });
});
