/** The dashboards, as Grafana's own types describe them: a misspelt or misplaced field would be ignored there without a word. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { dashboard } from "../support/dashboards.js";
import { projectDirectory, startCommand } from "../support/program.js";

/** Types of dashboards whose panels are of the kinds that ours have; enums are texts in JSON. */
const types = `
import type { Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel } from "@grafana/schema";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { FieldConfig as StateFields, Options as State } from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type { FieldConfig as TableFields, Options as Table } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type { FieldConfig as SeriesFields, Options as Series } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
type Json<T> = T extends string ? \`\${T}\` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
// Grafana gives what is missing its default.
type Some<T> = T extends unknown[] ? T : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;
type Config<Fields> = { defaults: Omit<FieldConfig, "custom"> & { custom?: Some<Fields> }; overrides: FieldConfigSource["overrides"] };
type Of<Type extends string, Options, Fields = {}> =
  Omit<Panel, "type" | "options" | "fieldConfig"> & { type: Type; options?: Some<Options>; fieldConfig?: Config<Fields> };
type Any = Of<"stat", Stat> | Of<"state-timeline", State, StateFields> | Of<"table", Table, TableFields> | Of<"timeseries", Series, SeriesFields>;
export type Ours = Json<Omit<Dashboard, "panels"> & { panels: (Any | RowPanel)[] }>;
`;

/** Compiles a dashboard against the types. @returns what the compiler has against it */
async function complaints(text: string): Promise<string[]> {
  const directory = mkdtempSync(join(projectDirectory, "node_modules/.dashboards-"));
  try {
    writeFileSync(join(directory, "types.ts"), types);
    writeFileSync(
      join(directory, "dashboard.ts"),
      `import type { Ours } from "./types.js";\nexport const it: Ours = ${text};`,
    );
    const tsc = join(projectDirectory, "node_modules/typescript/bin/tsc");
    const flags = [
      "--noEmit",
      "--strict",
      "--skipLibCheck",
      "--pretty",
      "false",
      "--module",
      "nodenext",
      "--target",
      "es2023",
      "--ignoreConfig",
    ];
    const { stdout } = await startCommand(process.execPath, [tsc, ...flags, join(directory, "dashboard.ts")]).ended;
    return stdout.split("\n").filter((line) => line.includes("error"));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

it.each(["hawser-peers", "hawser-serve"])("%s is what Grafana's types describe", async (uid) => {
  expect(await complaints(JSON.stringify(dashboard(uid)))).toEqual([]);
});

it("the types refuse a field that Grafana does not have", async () => {
  const text = JSON.stringify(dashboard("hawser-peers"));
  expect(await complaints(text.replace('"gridPos":', '"gridPosition":'))).not.toEqual([]);
  expect(await complaints(text.replace('"fillOpacity":', '"fillOpacty":'))).not.toEqual([]);
});
