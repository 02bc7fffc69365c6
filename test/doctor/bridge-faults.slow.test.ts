/**
 * Faults of what runs subscribed functions, seeded one at a time: each is named, with what to do, and nothing else is.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { OwnPostgres } from "../faults/support/own-postgres.js";
import { rowsOf } from "../support/on-server.js";
import {
  expectFault,
  onlyFinding,
  postgresWithPasswords,
  type System,
  type SystemOptions,
  startSystem,
  subscribing,
} from "./support/system.js";

let postgres: OwnPostgres;
/** With a subscription, and led. Each test leaves it well. */
let system: System;

/** Starts a system with a subscription. */
async function subscribed(options?: SystemOptions): Promise<System> {
  const made = await startSystem(postgres, options);
  await made.run(...subscribing(`doctor.${made.name}`));
  return made;
}

beforeAll(async () => {
  postgres = await postgresWithPasswords();
  system = await subscribed();
  await system.led();
});
afterAll(async () => {
  await system?.[Symbol.asyncDispose]();
  await postgres?.[Symbol.asyncDispose]();
});

describe("the functions", () => {
  it("one that was dropped with CASCADE, while nobody served", async () => {
    await using unserved = await subscribed({ serve: false });
    // A row without its wrapper, as it stays until somebody takes it out.
    await unserved.run("DROP FUNCTION public.take(bytea) CASCADE");
    const { findings } = await unserved.examine();
    expect(findings.map(({ check }) => check)).toEqual(["gateway", "bound-functions"]);
    expect(findings[1]).toMatchObject({
      severity: "error",
      what: `the function public.take(bytea) of the subscription to "doctor.${unserved.name}" no longer exists: it was dropped with CASCADE`,
      remedy: expect.stringContaining("SELECT hawser.prune_handlers()"),
    });
    await unserved.run("SELECT hawser.prune_handlers()");
    expect(onlyFinding(await unserved.examine()).check).toBe("gateway");
  });

  it("one that the role which it runs as may not execute any more", async () => {
    await system.run("CREATE ROLE doctor_subscriber IN ROLE hawser_nats");
    await expectFault(system, {
      seed: [
        "CREATE FUNCTION public.closed(bytea) RETURNS void LANGUAGE sql AS ''",
        "SET ROLE doctor_subscriber; SELECT nats_subscribe('doctor.closed', 'public.closed'::regproc); RESET ROLE",
        "REVOKE EXECUTE ON FUNCTION public.closed(bytea) FROM PUBLIC",
      ],
      finding: {
        ...{ check: "bound-functions", code: "not_permitted" },
        remedy: "GRANT EXECUTE ON FUNCTION public.closed(bytea) TO doctor_subscriber",
      },
    });
    await system.run("DROP OWNED BY doctor_subscriber CASCADE", "DROP ROLE doctor_subscriber");
  });

  it("one of a role that may not subscribe any more", async () => {
    await system.run("CREATE ROLE doctor_former IN ROLE hawser_nats");
    await expectFault(system, {
      seed: [
        "SET ROLE doctor_former; SELECT nats_subscribe('doctor.former', 'public.take'::regproc); RESET ROLE",
        "REVOKE hawser_nats FROM doctor_former",
      ],
      finding: {
        ...{ check: "bound-functions", code: "not_permitted" },
        remedy: expect.stringContaining("GRANT hawser_nats TO doctor_former"),
      },
      undo: ["GRANT hawser_nats TO doctor_former"],
    });
    await system.run("DROP OWNED BY doctor_former CASCADE", "DROP ROLE doctor_former");
  });

  it("says what to do without SQL of whoever named the subject", async () => {
    await system.run(
      "SELECT nats_subscribe('a'',0);DROP/**/SCHEMA/**/public;--', 'public.take'::regproc)",
      `DO $$ DECLARE wrapper regprocedure := (
         SELECT p.oid::regprocedure FROM hawser_bridge_data.nats_handlers AS h
           JOIN pg_proc AS p ON p.proname = h.wrapper AND p.pronamespace = 'hawser_run'::regnamespace
          WHERE h.subject LIKE '%DROP%');
       BEGIN EXECUTE format('ALTER FUNCTION %s SECURITY INVOKER', wrapper); END $$`,
    );
    const { remedy } = onlyFinding(await system.examine());
    expect(remedy).toContain("SELECT nats_subscribe('a'',0);DROP/**/SCHEMA/**/public;--', '…')");
    await system.run(remedy.slice(0, remedy.indexOf("; then")));
    await system.run("SELECT hawser.prune_handlers()");
    expect((await system.examine()).findings).toEqual([]);
  });

  it("one whose wrapper the executor may not call", async () => {
    const [row] = await rowsOf(system.superuserUrl, "SELECT wrapper FROM hawser_bridge_data.nats_handlers");
    const wrapper = pg.escapeIdentifier(row!["wrapper"] as string);
    await expectFault(system, {
      seed: [`REVOKE EXECUTE ON FUNCTION hawser_run.${wrapper} FROM hawser_executor`],
      finding: { check: "bound-functions", code: "not_permitted" },
    });
  });
});

describe("the login that runs them", () => {
  it.each([
    ["is superuser", "ALTER ROLE $ SUPERUSER", "it has SUPERUSER"],
    ["is in another role", "GRANT pg_read_all_data TO $", 'a member of "pg_read_all_data"'],
    ["may not log in", "ALTER ROLE $ NOLOGIN", "may not log in"],
    ["has expired", "ALTER ROLE $ VALID UNTIL '2020-01-01'", "has expired"],
    ["is not a member of hawser_executor", "REVOKE hawser_executor FROM $", "is not a member of hawser_executor"],
  ])("%s", async (_what, seed, words) => {
    const what = expect.stringContaining(words);
    await expectFault(system, {
      seed: [seed.replace("$", system.executor)],
      finding: { check: "executor-login", severity: "error", code: "executor_login", what },
    });
  });

  it("has another password", async () => {
    const [own] = await rowsOf(system.superuserUrl, "SELECT password FROM hawser_bridge_data.executor_login");
    await expectFault(system, {
      seed: [`ALTER ROLE ${system.executor} PASSWORD 'another'`],
      finding: {
        ...{ check: "executor-login", code: "executor_login" },
        what: expect.stringContaining("cannot connect: password authentication failed"),
        remedy: expect.stringContaining(`DROP ROLE "${system.executor}"`),
      },
      undo: [`ALTER ROLE ${system.executor} PASSWORD '${own!["password"]}'`],
    });
  });

  it("is missing", async () => {
    await using unserved = await startSystem(postgres, { serve: false });
    await unserved.run(`DROP OWNED BY ${unserved.executor}`, `DROP ROLE ${unserved.executor}`);
    const { findings } = await unserved.examine();
    expect(findings.map(({ check }) => check)).toEqual(["gateway", "executor-login"]);
    expect(findings[1]!.what).toContain(`"${unserved.executor}", which runs subscribed functions, is missing`);
  });

  it("is another one, by --executor-url", async () => {
    await system.run("CREATE ROLE doctor_executor LOGIN PASSWORD 'executor' IN ROLE hawser_executor");
    const executorUrl = new URL(system.url);
    executorUrl.username = "doctor_executor";
    executorUrl.password = "executor";
    expect((await system.examine({ executorUrl: executorUrl.href })).findings).toEqual([]);
    await system.run("ALTER ROLE doctor_executor CREATEROLE");
    const finding = onlyFinding(await system.examine({ executorUrl: executorUrl.href }));
    expect(finding.remedy).toBe('ALTER ROLE "doctor_executor" NOCREATEROLE');
    await system.run("DROP OWNED BY doctor_executor", "DROP ROLE doctor_executor");
  });

  it("leads to another database, by --executor-url, also to one with Hawser in it", async () => {
    await using other = await startSystem(postgres, { serve: false });
    const [own] = await rowsOf(other.superuserUrl, "SELECT user_name, password FROM hawser_bridge_data.executor_login");
    const executorUrl = new URL(other.url);
    executorUrl.username = own!["user_name"] as string;
    executorUrl.password = own!["password"] as string;
    const finding = onlyFinding(await system.examine({ executorUrl: executorUrl.href }));
    expect(finding).toMatchObject({
      check: "executor-login",
      severity: "error",
      code: "executor_login",
      remedy: "Let --executor-url name the same server and database as --database-url, with the other login.",
    });
    expect(finding.what).toContain(`reaches the database "${other.name}" of the server at ${executorUrl.host}`);
    expect(finding.what).toContain(`not the database "${system.name}" of the server at ${executorUrl.host}`);
    expect(JSON.stringify(finding)).not.toContain(executorUrl.password);
  });
});

it.each([
  ["with what it has received", 75],
  ["with what is saved in the table", 0],
  ["because a session has locked the fence", 75],
])("a leader that is behind %s", async (what, behindSeconds) => {
  await using unserved = await subscribed({ serve: false });
  // What a leader writes, at its pace.
  const leader = new pg.Client(unserved.superuserUrl);
  await leader.connect();
  if (what.includes("saved")) {
    await leader.query(
      `INSERT INTO hawser_bridge_data.saved_messages (handler_id, subject, payload, message_id, saved_at)
       SELECT id, 'a', 'x', 'm', now() - interval '75 s' FROM hawser_bridge_data.nats_handlers`,
    );
  }
  const locker = new pg.Client({ connectionString: unserved.superuserUrl });
  await locker.connect();
  const isLocked = what.includes("locked");
  if (isLocked) await locker.query("BEGIN; SELECT FROM hawser_data.fences WHERE what = 'serve' FOR UPDATE");
  const beating = new AbortController();
  const beats = (async () => {
    while (!beating.signal.aborted) {
      await leader.query(
        `UPDATE hawser_data.owners SET owner = 'slow', beat = beat + 1,
                state = jsonb_build_object('progress_at', floor(extract(epoch FROM now()) * 1000) - ${1000 * behindSeconds})
          WHERE what = 'serve'`,
      );
    }
  })();
  try {
    const { findings } = await unserved.examine();
    expect(findings.map(({ check, severity }) => `${check} ${severity}`)).toEqual(["gateway error", "leader warning"]);
    expect(findings[1]!.what).toMatch(/^the leader is (7[5-9]|8\d)\.\d s behind/);
    const [pid] = (await locker.query<{ pid: number }>("SELECT pg_backend_pid() AS pid")).rows.map((row) => row.pid);
    expect(findings[1]!.what.includes(`: the session ${pid} of `)).toBe(isLocked);
    expect(findings[1]!.remedy).toContain(
      isLocked ? `pg_terminate_backend(${pid})` : "subscribed functions cannot be run",
    );
  } finally {
    beating.abort();
    await beats;
    await leader.end();
    await locker.end();
  }
});

describe("the outbox", () => {
  it("a message whose stream does not answer, while others are relayed; and one that nobody relays", async () => {
    await using held = await subscribed();
    await held.led();
    await held.run(
      "SELECT hawser.enqueue('doctor.held', 'x', stream => true, domain => 'nowhere')",
      "UPDATE hawser_data.outbox SET enqueued_at = now() - interval '1 h'",
    );
    expect(onlyFinding(await held.examine())).toMatchObject({
      check: "outbox",
      severity: "warning",
      what: expect.stringMatching(
        /^1 messages? of the outbox waits?, the oldest for 60 min \(subject "doctor.held"\), and /,
      ),
      remedy: expect.stringContaining("hawser outbox status"),
    });
  });
});
