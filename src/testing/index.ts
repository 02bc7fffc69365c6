/**
 * What the package exports as `hawser/testing`: real servers for the tests of users, and faults on demand.
 *
 *     test process ── calls (a Unix socket) ──▶ keeper ──▶ dev stack: Postgres, nats-server, their watchdog
 *          └────────── SQL, NATS ──────────────▶ relay ──▶ a copied database, an account
 *
 * The first process of a run that asks for a stack starts the keeper (connect-keeper.ts, run.ts), a process that ends when
 * the test runner has ended. It has the servers, the templates, and for each stack a copied database, a NATS account and a
 * relay before each server (kept-stacks.ts). What a process asked for goes when its connection to the keeper ends.
 */
export { type EventuallyOptions, eventually } from "./eventually.js";
export { type Faults, twice } from "./faults.js";
export { setup } from "./global-setup.js";
export type { MigrationProgram, Migrations } from "./migrations.js";
export type { ProgramEnd, ProgramOptions, TestProgram } from "./program.js";
export { type Connections, type CutOptions, type TestStack, type TestStackOptions, testStack } from "./test-stack.js";
