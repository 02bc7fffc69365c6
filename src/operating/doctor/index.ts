/**
 * `hawser doctor`: finds problems of an installation and of the processes around it, with their remedies. It changes
 * nothing. See README.md.
 */
import { systemClock } from "../../foundation/runtime/index.js";
import { handlersCheck } from "./bound-functions.js";
import { certificatesCheck } from "./certificates.js";
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

export { certificateWarningMs } from "./certificates.js";
export type { CheckReport, DoctorReport, NamedFinding, Severity } from "./examine.js";
export type { DoctorOptions } from "./facts.js";
export { maxBehindMs, maxUnreadMs } from "./messages.js";

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
      certificatesCheck(facts),
    ],
    { totalMs, clock: systemClock },
  );
}
