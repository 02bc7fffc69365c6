/**
 * The NOTIFY queue, which all databases of a server share. When it is full, a COMMIT with a notification fails: Hawser's functions
 * leave notifications out before that.
 */
import pg from "pg";
import { expect, it } from "vitest";
import { notifyQueueLimit } from "../../src/jobs-and-peers/store/index.js";
import { serve } from "../../src/nats/serve/index.js";
import { postgresWithPasswords, startSystem } from "../doctor/support/system.js";
import { testDatabase, testServerUrl } from "../support/database.js";
import { eventually } from "../support/eventually.js";
import { rowsOf } from "../support/on-server.js";
import { slowDescribe } from "../support/slow-it.js";

it("is looked at by each function of the installation that notifies", async () => {
  await using database = await testDatabase();
  const functions = (await rowsOf(
    database.url,
    `SELECT p.proname AS name, regexp_replace(p.prosrc, '--.*?$', '', 'gn') AS source
       FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
      WHERE n.nspname ~ '^hawser' AND p.prosrc ~* 'notify'`,
  )) as { name: string; source: string }[];
  const guarded = new RegExp(
    String.raw`PERFORM pg_notify\([^;]*\) WHERE pg_notification_queue_usage\(\) < ${notifyQueueLimit};`,
    "g",
  );
  for (const { name, source } of functions)
    expect(source.replace(guarded, ""), name).not.toMatch(/pg_notify|\bNOTIFY\s/);
  expect(functions.filter(({ source }) => source.match(guarded) !== null).length).toBeGreaterThan(10);
});

/** Server that can have a small queue: since Postgres 17. */
const isSmall = Number((await rowsOf(testServerUrl(), "SHOW server_version_num"))[0]!["server_version_num"]) >= 170_000;

slowDescribe("a full NOTIFY queue", () => {
  it.skipIf(!isSmall)("costs no COMMIT of a user, and is named with the session that holds it", async () => {
    await using postgres = await postgresWithPasswords();
    const client = async (connectionString: string) => {
      const opened = new pg.Client({ connectionString, application_name: "the holder" });
      opened.on("error", () => undefined);
      await opened.connect();
      return opened;
    };
    {
      const superuser = await client(postgres.url);
      await superuser.query("ALTER SYSTEM SET max_notify_queue_pages = 64");
      await superuser.end();
      await postgres.kill("SIGINT");
      await postgres.start();
    }
    await using system = await startSystem(postgres, { serve: false });
    const holder = await client(postgres.url);
    await holder.query("LISTEN anything");
    await holder.query("BEGIN");
    const { rows } = await holder.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    const user = await client(system.superuserUrl);
    const fill = async (): Promise<void> => {
      for (;;) await user.query("SELECT pg_notify('anything', repeat(random()::text || ' ', 350))");
    };
    await expect(fill()).rejects.toThrow("too many notifications in the NOTIFY queue");

    await user.query("CREATE FUNCTION public.take(bytea) RETURNS void LANGUAGE sql AS ''");
    for (const statement of [
      // The relay is asleep.
      "SELECT setval('hawser_data.outbox_state_asleep_seq', 2)",
      "SELECT hawser.enqueue('topic', 'x')",
      "SELECT hawser.enqueue('topic', 'x', message_id => 'id', headers => '{\"a\": \"b\"}')",
      "SELECT hawser.enqueue('subject', 'x', stream => false)",
      "SELECT hawser.enqueue('subject', 'x', stream => true, message_id => 'id')",
      "SELECT hawser.enqueue_batch('topic', '{x,y}'::text[])",
      "SELECT hawser.schedule('name', '* * * * *', 'topic', 'x')",
      "SELECT nats_subscribe('subject', 'public.take'::regproc)",
      "INSERT INTO hawser_peer_data.listeners (topic, addr, listener_name) VALUES ('t', 'a:1', 'l')",
      "UPDATE hawser_peer_data.listeners SET topic = 'u'",
      "DELETE FROM hawser_peer_data.listeners",
      'SELECT hawser.set_nats_server(\'{"host": "127.0.0.1"}\')',
      "CREATE SERVER nats_main FOREIGN DATA WRAPPER pgnats_fdw OPTIONS (host '127.0.0.1')",
      "DROP FUNCTION public.take(bytea) CASCADE",
    ]) {
      const failure = await user.query(statement).then(
        () => undefined,
        (error: Error) => error.message,
      );
      expect([statement, failure]).toEqual([statement, undefined]);
    }

    const { pid } = rows[0]!;
    const examined = async (databaseUrl: string) =>
      (await system.examine({ databaseUrl })).findings.find(({ check }) => check === "notify-queue");
    expect(await examined(system.superuserUrl)).toMatchObject({
      severity: "error",
      what: expect.stringMatching(
        new RegExp(
          `of the NOTIFY queue .* is used: .*; the session ${pid} of the role "\\w+" \\("the holder"\\) has the oldest`,
        ),
      ),
      remedy: expect.stringContaining(`SELECT pg_terminate_backend(${pid})`),
    });
    expect((await examined(system.url))?.remedy).toContain("GRANT pg_read_all_stats to this login");

    await system.run(`GRANT pg_read_all_stats TO ${system.login}`);
    await using server = await serve({ databaseUrl: system.url, listen: "127.0.0.1:0", monitor: "127.0.0.1:0" });
    const metric = async (): Promise<RegExpExecArray | null> => {
      const text = await (await fetch(`http://${server.monitorAddress}/metrics`)).text();
      return /^hawser_notify_queue_ratio\{pid="(\d*)".*\} (\S+)$/m.exec(text);
    };
    await eventually("it is measured", async () => (await metric()) !== null);
    const [, named, ratio] = (await metric())!;
    expect(named).toBe(String(pid));
    expect(Number(ratio)).toBeGreaterThanOrEqual(notifyQueueLimit);

    await holder.query("COMMIT");
    expect(await examined(system.superuserUrl)).toBeUndefined();
    await holder.end();
    await user.end();
  });
});
