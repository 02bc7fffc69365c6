/**
 * The order service, whose processes are killed: each order has one booking and one row of the audit.
 */
import { expect, inject, it } from "vitest";
import { rowsOf } from "../support/on-server.js";
import { startProgram } from "../support/program.js";

/** Ten seconds, and more for an acceptance run. */
const seconds = process.env["HAWSER_TEST_ORDERS_SECONDS"] ?? "10";

const databases = () =>
  rowsOf(inject("databaseUrl"), "SELECT datname FROM pg_database WHERE datname LIKE 'hawser\\_orders\\_%' ORDER BY 1");

const timeout = 120_000 + Number(seconds) * 1_000;

it("npm run orders books and audits each order once, whatever is killed", { timeout }, async () => {
  // Of runs that were killed, on a server of somebody's.
  const before = await databases();
  const env = {
    HAWSER_DATABASE_URL: inject("databaseUrl"),
    HAWSER_NATS_URL: inject("natsUrl"),
    NO_COLOR: "1",
    FORCE_COLOR: undefined,
  };
  const { status, stdout, stderr } = await startProgram("examples/orders.ts", ["--seconds", seconds], { env }).ended;
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  const [, orders, bookings, audit] = /^(\d+) orders, (\d+) bookings, (\d+) rows of the audit$/m.exec(stdout)!;
  expect(Number(orders)).toBeGreaterThan(0);
  expect([bookings, audit]).toEqual([orders, orders]);
  expect(stdout).toMatch(/^Killed: shop [1-9]\d* times, warehouse [1-9]\d* times, serve [1-9]\d* times$/m);
  expect(await databases()).toEqual(before);
});
