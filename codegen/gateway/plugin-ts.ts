import { runPlugin } from "../plugin.js";
import { generateGatewayTypescript } from "./generate.js";

await runPlugin(generateGatewayTypescript);
