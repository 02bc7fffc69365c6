import { runPlugin } from "../plugin.js";
import { generateGatewayDocs } from "./generate.js";

await runPlugin(generateGatewayDocs);
