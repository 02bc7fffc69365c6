/**
 * A role that subscribes to much that the NATS server does not permit: what is refused is dealt with together, and the process
 * goes on for everybody else.
 */
import { expect, it } from "vitest";
import { eventually } from "../support/eventually.js";
import { startNatsServer } from "../support/nats-server.js";
import { bridgeWorld } from "./support/bridge-world.js";

const refusedSubjects = 1_000;

it("a thousand subscriptions that the server refuses delay nobody", async () => {
  await using server = await startNatsServer({
    config: `
      authorization { users: [
        { user: "edge", password: "edge", permissions: { subscribe: { deny: "bad.>" } } }
        { user: "all", password: "all" }
      ] }
      no_auth_user: all`,
  });
  await using world = await bridgeWorld({
    natsUrl: server.url,
    serverOptions: { username: "edge", password: "edge" },
    sql: `
      CREATE TABLE got (payload bytea);
      GRANT INSERT ON got TO PUBLIC;
      CREATE FUNCTION capture(payload bytea) RETURNS void LANGUAGE sql AS $$INSERT INTO public.got SELECT payload WHERE payload <> ''$$;
    `,
  });
  await world.subscribe(`${world.prefix}.good`, "capture(bytea)");
  const user = await world.user();
  // By the processor time of this process: others that take the processor do not count.
  let longest = 0;
  let last = process.cpuUsage();
  const timer = setInterval(() => {
    const { user, system } = process.cpuUsage(last);
    longest = Math.max(longest, user + system);
    last = process.cpuUsage();
  }, 10);
  const subjects = Array.from({ length: refusedSubjects }, (_, n) => `bad.${n}.*`);
  await user.client.query(
    "SELECT count(nats_subscribe(s, 'public.capture(bytea)'::regprocedure)) FROM unnest($1::text[]) AS s",
    [subjects],
  );
  const told = () => world.log.messages("warn").filter((line) => line.includes("does not permit a subscription"));
  await eventually("all are told", () => told().length === refusedSubjects, 60_000);
  world.nats.publish(`${world.prefix}.good`, "x");
  await world.counts(1, "SELECT count(*) FROM got");
  clearInterval(timer);
  // It took 26 s, in which nothing else was done: no answer, no beat of the leader.
  expect(longest / 1_000).toBeLessThan(3_000);
});
