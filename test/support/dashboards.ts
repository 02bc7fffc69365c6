/** The dashboards of Grafana as the tests read them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { projectDirectory } from "./program.js";

/** Relative to the root of the project. */
const dashboardFolder = "deploy/chart/dashboards";

interface Dashboard {
  readonly id?: unknown;
  readonly uid: string;
  readonly schemaVersion: number;
  readonly templating: { readonly list: readonly { readonly name: string }[] };
  readonly panels: readonly {
    readonly id: number;
    readonly type: string;
    readonly title: string;
    readonly description: string;
    readonly fieldConfig?: {
      readonly defaults: {
        readonly links?: readonly { readonly url: string }[];
        readonly thresholds?: { readonly steps: readonly { readonly color: string; readonly value: number | null }[] };
        readonly mappings?: readonly { readonly options: Readonly<Record<string, { readonly color: string }>> }[];
      };
    };
    readonly gridPos: Readonly<Record<"x" | "y" | "w" | "h", number>>;
    readonly targets: readonly { readonly expr: string; readonly legendFormat: string }[];
  }[];
}

export function dashboard(uid: string): Dashboard {
  return JSON.parse(readFileSync(join(projectDirectory, dashboardFolder, `${uid}.json`), "utf8"));
}

/** Queries of all panels, in PromQL with variables. */
export function expressionsOf({ panels }: Dashboard): string[] {
  return panels.filter(({ type }) => type !== "row").flatMap(({ targets }) => targets.map(({ expr }) => expr));
}
