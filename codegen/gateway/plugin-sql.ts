import { runPlugin } from "../plugin.js";
import { generateGatewaySql } from "./generate.js";

await runPlugin(generateGatewaySql);
