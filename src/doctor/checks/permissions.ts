/**
 * What the NATS user may do, as far as it is used.
 */
import { tables } from "../../../generated/ts/rows/nats.js";
import { doctorConstants } from "../../../generated/ts/settings/nats.js";
import type { Check } from "../examine.js";
import type { Facts } from "../facts.js";
import type { Finding, Verdict } from "../finding.js";
import { NatsProbe } from "../nats-probe.js";
import { catalogCheck, natsHangs, someOf } from "./catalog-check.js";

/** Subscribing to what has handlers, and publishing role-change notices. */
export function permissionsCheck(facts: Facts): Check {
  return catalogCheck("nats-permissions", (signal) => permissions(facts, signal), {
    needs: ["nats"],
    timeoutMs: doctorConstants.natsCheckMs,
    late: natsHangs,
  });
}

async function permissions(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const definition = await facts.natsDefinition();
  if (definition.kind !== "complete")
    return {
      notChecked:
        "this login may not read the whole definition of the NATS server: run it as the login of `hawser serve`",
    };
  const { options } = definition;
  if (!(await facts.mayRead(tables.natsHandler))) return { notChecked: "this login may not read hawser.nats_handlers" };
  const rows = await facts.rows<{ subject: string }>(
    `SELECT DISTINCT h.subject FROM ${tables.natsHandler} AS h ORDER BY 1`,
  );
  const subjects = rows.map(({ subject }) => subject);
  await using probe = await NatsProbe.open(options, facts.options.secretsDirectories, signal);
  if (probe.problem !== undefined)
    return {
      notChecked: `this machine has no connection to NATS with the options of the server: ${probe.problem.message}`,
    };
  const answers = await probe.maySubscribe(subjects);
  const denied = subjects.filter((_, at) => answers[at] === "denied");
  const notices = options.notify_subject;
  const mayNotify = await probe.mayPublish(notices);
  const findings: Finding[] = [];
  if (denied.length > 0) {
    findings.push({
      severity: "error",
      code: "nats_permission_denied",
      what: `the NATS user may not subscribe to ${someOf(
        denied.map((subject) => `"${subject}"`),
        5,
      )}: the functions for it are never called`,
      remedy: `In the configuration of the NATS server: permissions { subscribe: { allow: [${denied.map((subject) => JSON.stringify(subject)).join(", ")}] } }, or take ${denied.length === 1 ? "it" : "them"} out of its deny`,
    });
  }
  if (mayNotify === "denied") {
    findings.push({
      severity: "warning",
      code: "nats_permission_denied",
      what: `the NATS user may not publish to "${notices}" (notify_subject): nobody hears of a change of the role of Postgres`,
      remedy: `In the configuration of the NATS server: permissions { publish: { allow: [${JSON.stringify(notices)}] } }, or name another notify_subject`,
    });
  }
  return {
    findings,
    seen: `${subjects.length} subjects may be subscribed to`,
    ...(mayNotify === undefined && {
      notChecked: `whether "${notices}" may be published to: this server cannot be asked without publishing`,
    }),
  };
}
