/** Check of TLS certificates: of gateways and of running peers, before they end. */
import { views } from "../../../generated/ts/rows/nats.js";
import { ago } from "../../foundation/errors/index.js";
import { catalogCheck } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";

/** Time before the end of a TLS certificate from which it is reported: 14 days. */
export const certificateWarningMs = 1_209_600_000;

/** Query: certificates that end soon, of each kind the number of processes that have one, and the first that ends. */
const endingSql = `
  SELECT 'peer' AS kind, count(*)::integer AS count, (array_agg(p.name ORDER BY p.certificate_ends_at, p.name COLLATE "C"))[1] AS name,
         extract(epoch FROM min(p.certificate_ends_at) - now())::float8 AS "leftSeconds"
    FROM hawser.peer_status() AS p
   WHERE p.running AND p.certificate_ends_at < now() + $1 * interval '1 ms'
  HAVING count(*) > 0`;

const gatewaySql = `
  SELECT 'gateway' AS kind, 1 AS count, '' AS name, extract(epoch FROM w.certificate_ends_at - now())::float8 AS "leftSeconds"
    FROM ${views.bridgeWork} AS w WHERE w.certificate_ends_at < now() + $1 * interval '1 ms'`;

interface Ending {
  readonly kind: "peer" | "gateway";
  readonly count: number;
  /** First peer whose certificate ends. */
  readonly name: string;
  readonly leftSeconds: number;
}

/** Check that a certificate is renewed in time. */
export function certificatesCheck(facts: Facts): Check {
  return catalogCheck("certificates", () => certificates(facts), { needs: ["version"] });
}

async function certificates(facts: Facts): Promise<Verdict> {
  const maySee = await facts.mayRead(views.bridgeWork);
  const rows = await facts.rows<Ending>(endingSql, [certificateWarningMs]);
  if (maySee) rows.push(...(await facts.rows<Ending>(gatewaySql, [certificateWarningMs])));
  return {
    findings: rows.map(findingOf),
    ...(!maySee && { notChecked: `this login may not read ${views.bridgeWork}: GRANT hawser_viewer to it` }),
    ...(rows.length === 0 && { seen: "none ends within 14 days" }),
  };
}

function findingOf({ kind, count, name, leftSeconds }: Ending): Finding {
  const ends = leftSeconds > 0 ? `ends in ${ago(leftSeconds)}` : `ended ${ago(-leftSeconds)} ago`;
  const others = count === 1 ? "" : `, and that of ${count - 1} more within 14 days`;
  return {
    severity: leftSeconds > 0 ? "warning" : "error",
    what:
      kind === "peer"
        ? `the TLS certificate of the peer ${JSON.stringify(name)} ${ends}${others}`
        : `the TLS certificate of \`hawser serve\` ${ends}`,
    remedy:
      kind === "peer"
        ? "Renew its file, and that of others that `hawser peers` shows: the process reads it again by itself"
        : "Renew the file of --tls-cert: each process reads it again by itself",
  };
}
