/**
 * `hawser doctor`: what is wrong with an installation and with what runs beside it, and what to do about it. It changes nothing.
 *
 * An examination is a list of checks, from what all the others need to the details. `examine.ts` runs them one after another,
 * each with a time limit; a check that needs one that has failed, or whose error that one explains, is not reported. `facts.ts`
 * has what several checks ask for, read once, and the session. Then one file for each part of the system: `database.ts`
 * (Postgres lets this login in), `installation.ts` (what `hawser init` has made: findings are the faults that the list of
 * `src/installation` knows), `nats-server.ts`, `gateway.ts`, `nats-permissions.ts`, `bound-functions.ts`, `executor-login.ts`,
 * `leader.ts`, `messages.ts` and `outbox.ts`.
 *
 * To add a check: a `Check` in the file of its part, its name in the list below, and a fault that seeds it in `test/doctor`.
 */
import { doctorConstants } from "../../generated/ts/settings/nats.js";
import { systemClock } from "../runtime/index.js";
import { handlersCheck } from "./bound-functions.js";
import { databaseCheck } from "./database.js";
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

/**
 * Makes all checks, from what all needs to the details, within `totalMs` of the spec.
 *
 * @throws HawserError `invalid_argument` if a URL cannot be read
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
    ],
    { totalMs: doctorConstants.totalMs, clock: systemClock },
  );
}
