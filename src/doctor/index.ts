/**
 * `hawser doctor`: finds problems of an installation and of the processes around it, with their remedies. It changes
 * nothing.
 *
 * An examination is a list of checks, ordered from the prerequisites to the details. `examine.ts` runs them one after
 * another, each with a time limit; a check is not reported if it needs a failed one, or if a failed one explains its
 * error. `facts.ts` has the session, and data that several checks use, read once. Each part of the system has a file:
 * `database.ts` (the connection to Postgres), `installation.ts` (objects that `hawser init` creates; the findings are
 * the faults that `src/installation` lists), `nats-server.ts`, `gateway.ts`, `nats-permissions.ts`,
 * `bound-functions.ts`, `executor-login.ts`, `leader.ts`, `messages.ts` and `outbox.ts`.
 *
 * To add a check: a `Check` in the file of its part, its name in the list below, and a test in `test/doctor` that seeds
 * the fault.
 */
import { systemClock } from "../runtime/index.js";
import { handlersCheck } from "./bound-functions.js";
import { databaseCheck, notifyQueueCheck } from "./database.js";
import { type DoctorReport, examine } from "./examine.js";
import { executorCheck } from "./executor-login.js";
import { type DoctorOptions, Facts } from "./facts.js";
import { gatewayChecks } from "./gateway.js";
import { installationChecks } from "./installation.js";
import { leadCheck } from "./leader.js";
import { messageChecks } from "./messages.js";
import { permissionsCheck } from "./nats-permissions.js";
import { natsServerChecks } from "./nats-server.js";
import { outboxChecks } from "./outbox.js";

export type { CheckReport, DoctorReport, NamedFinding, Severity } from "./examine.js";
export type { DoctorOptions } from "./facts.js";

/** Time limit of all checks together. */
const totalMs = 27_000;

/**
 * Runs all checks, from the prerequisites to the details, within `totalMs`.
 *
 * @throws HawserError `invalid_argument` if a URL cannot be parsed
 */
export async function doctor(options: DoctorOptions): Promise<DoctorReport> {
  using facts = new Facts(options);
  return await examine(
    [
      databaseCheck(facts),
      ...installationChecks(facts),
      ...natsServerChecks(facts),
      ...gatewayChecks(facts),
      permissionsCheck(facts),
      handlersCheck(facts),
      executorCheck(facts),
      leadCheck(facts),
      ...messageChecks(facts),
      ...outboxChecks(facts),
      notifyQueueCheck(facts),
    ],
    { totalMs, clock: systemClock },
  );
}
