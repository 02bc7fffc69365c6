/** Plugin of `buf generate` for this project: generates the dashboards of the chart. */
import { runSpecPlugin } from "../plugin.js";
import { generateDashboards } from "./generate.js";

await runSpecPlugin(generateDashboards);
