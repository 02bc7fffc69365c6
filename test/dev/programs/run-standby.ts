/** Starts a primary with a standby, prints their URLs as one line of JSON, and stays until it is killed. */
import { startPrimaryAndStandby } from "../../support/standby.js";

const { primary, standby } = await startPrimaryAndStandby();
const directories = [primary, standby].map(({ dataDirectory }) => dataDirectory);
console.log(JSON.stringify({ urls: [primary.url, standby.url], directories }));
