// Opens a page that shows an alignment, clicks and types in it, and prints what happened as JSON: node page.mjs FILE
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const file = pathToFileURL(process.argv[2]).href;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--mute-audio"],
});
const found = { errors: [], refused: [], requests: [] };
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1000, height: 700 });
  page.on("pageerror", (error) => found.errors.push(String(error)));
  page.on("console", (line) => { if (line.type() === "error") found.errors.push(line.text()); });
  page.on("dialog", (dialog) => { found.errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (!request.url().startsWith("data:")) found.requests.push(request.url()); });
  await page.evaluateOnNewDocument(() => {
    window.refused = [];
    document.addEventListener("securitypolicyviolation", (event) => window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(file, { waitUntil: "load" });
  const here = () => page.evaluate(() => document.querySelector(".here")?.id ?? "");
  const waited = (condition) => page.waitForFunction(condition, { timeout: 20000 });

  if (process.argv[3] === "speed") {
    found.paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);
    found.loaded = await page.evaluate(() => performance.timing.loadEventEnd - performance.timing.navigationStart);
    found.frames = await page.evaluate(() => new Promise((done) => {
      const times = [];
      const step = (time) => {
        times.push(time);
        scrollBy(0, 120);
        if (times.length < 121) requestAnimationFrame(step);
        else done(times.slice(1).map((value, at) => value - times[at]));
      };
      requestAnimationFrame(step);
    }));
  } else {
    await waited("document.querySelectorAll('#track span').length > 0");
    found.shownInTrack = await page.evaluate(() => document.querySelectorAll("#track span:not(.loud)").length);
    found.loudInTrack = await page.evaluate(() => document.querySelectorAll("#track .loud").length);
    await page.click("#w2");
    await waited("!document.getElementById('audio').paused");
    found.clicked = await page.evaluate(() => document.getElementById("audio").currentTime);
    await page.click("#play");
    await waited("document.getElementById('audio').paused");
    await page.keyboard.press("Home");
    found.home = await here();
    await page.keyboard.press("ArrowRight");
    found.right = await here();
    await page.keyboard.press("n");
    found.next = await here();
    found.said = await page.evaluate(() => document.getElementById("said").textContent);
    await page.keyboard.press("Home");
    await page.keyboard.press(" ");
    await waited("document.querySelector('.here')?.id === 'w3'");
    found.litUp = await here();
    await page.keyboard.press(" ");
    const width = () => page.evaluate(() => document.querySelector("#track").textContent.length);
    const before = await width();
    await page.click("#in");
    await page.click("#in");
    await waited(`document.querySelector("#track").textContent.length < ${before}`);
    found.zoomed = (await width()) < before;
    await page.click("#check button");
    found.checked = await here();
    // The checker adds a style, which the policy refuses.
    found.refused = await page.evaluate(() => window.refused);
    const errors = [...found.errors];
    for (const scheme of ["light", "dark"]) {
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.evaluate("document.getElementById('help').open = true");
      found[scheme] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      await page.evaluate(`(() => { ${axe}; window.axe = axe; })()`);
      const report = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      found[`axe ${scheme}`] = report.violations.map((one) => `${one.impact} ${one.id}: ${one.nodes[0].html}`);
      if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/page-${scheme}.png` });
    }
    found.errors = errors;
    await page.emulateMediaType("print");
    found.printed = await page.evaluate(() => getComputedStyle(document.getElementById("player")).display);
  }
} finally {
  await browser.close();
}
console.log(JSON.stringify(found));
