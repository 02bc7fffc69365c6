/**
 * Entry `hawser/testing`: real servers for users' tests, and faults on demand.
 *
 * test process ── calls (a Unix socket) ──▶ keeper ──▶ dev stack: Postgres, nats-server, their watchdog
 * └────────── SQL, NATS ──────────────▶ relay ──▶ a copied database, an account
 *
 * The first process of a run that requests a stack starts the keeper (connect-keeper.ts, run.ts), a process that ends
 * after the test runner. It owns the servers, the templates, and for each stack a copied database, a NATS account and a
 * relay in front of each server (kept-stacks.ts). The stacks of a process are dropped when its connection to the keeper
 * ends.
 */
export { eventually } from "./eventually.js";
export { twice } from "./faults.js";
export { setup } from "./global-setup.js";
export type { TestProgram } from "./program.js";
export { type TestStack, type TestStackOptions, testStack } from "./test-stack.js";
