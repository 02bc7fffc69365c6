/** Protection of forms: a token that only this page's own HTML has, and the origin that the browser names. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

/** Time for which a form that was sent to a browser is valid. */
const formMs = 43_200_000;

/** Signs and checks the token of forms: the time at which it expires, and an HMAC of it. */
export class FormTokens {
  readonly #secret: Buffer | string;

  /** @param secret shared by processes that answer for one address; by default random */
  constructor(secret: string | undefined) {
    this.#secret = secret ?? randomBytes(32);
  }

  /** Returns a token that is valid for `formMs`. */
  create(): string {
    const expiresAt = String(Date.now() + formMs);
    return `${expiresAt}.${this.#sign(expiresAt)}`;
  }

  isValid(token: string): boolean {
    const [expiresAt = "", signature = ""] = token.split(".");
    const [given, right] = [Buffer.from(signature), Buffer.from(this.#sign(expiresAt))];
    return given.length === right.length && timingSafeEqual(given, right) && Number(expiresAt) > Date.now();
  }

  #sign(text: string): string {
    return createHmac("sha256", this.#secret).update(`hawser page form ${text}`).digest("base64url");
  }
}

/** True if the browser says that a page of another site loads this one as a part of it, such as a picture or a frame. */
export function isEmbedded(request: Request): boolean {
  const { headers } = request;
  const isForeign = headers.get("sec-fetch-site") === "cross-site" || headers.get("sec-fetch-site") === "same-site";
  return isForeign && (headers.get("sec-fetch-mode") !== "navigate" || headers.get("sec-fetch-dest") !== "document");
}

/**
 * True if the browser says that another site sent the request. Proxies may change the host, so that `Sec-Fetch-Site`
 * counts first. Programs send neither header.
 */
export function isCrossSite(request: Request): boolean {
  const site = request.headers.get("sec-fetch-site");
  if (site !== null) return site !== "same-origin" && site !== "none";
  const origin = request.headers.get("origin");
  if (origin === null) return false;
  return !URL.canParse(origin) || new URL(origin).host !== new URL(request.url).host;
}
