/**
 * An examination of a database and of what runs beside it. It changes nothing.
 */

import { doctorConstants } from "../../generated/ts/settings/nats.js";
import { systemClock } from "../runtime/index.js";
import { databaseCheck } from "./checks/database.js";
import { executorCheck } from "./checks/executor.js";
import { gatewayChecks } from "./checks/gateway.js";
import { handlersCheck } from "./checks/handlers.js";
import { installationChecks } from "./checks/installation.js";
import { leadCheck } from "./checks/lead.js";
import { leftoverChecks } from "./checks/leftovers.js";
import { natsServerChecks } from "./checks/nats-server.js";
import { permissionsCheck } from "./checks/permissions.js";
import { rightsChecks } from "./checks/rights.js";
import { schemaChecks } from "./checks/schema.js";
import { examine } from "./examine.js";
import { type DoctorOptions, Facts } from "./facts.js";
import type { DoctorReport } from "./finding.js";

/**
 * Looks at everything, from what all needs to the details, within `totalMs` of the spec.
 *
 * @throws StoreError `invalid_argument` if a URL cannot be read
 */
export async function doctor(options: DoctorOptions): Promise<DoctorReport> {
  using facts = new Facts(options);
  return await examine(
    [
      databaseCheck(facts),
      ...schemaChecks(facts),
      ...rightsChecks(facts),
      ...installationChecks(facts),
      ...natsServerChecks(facts),
      ...gatewayChecks(facts),
      permissionsCheck(facts),
      handlersCheck(facts),
      executorCheck(facts),
      leadCheck(facts),
      ...leftoverChecks(facts),
    ],
    { totalMs: doctorConstants.totalMs, clock: systemClock },
  );
}
