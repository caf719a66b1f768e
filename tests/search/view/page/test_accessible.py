"""What screen readers get of the page: the browser's own tree of names and roles, and contrast."""

import re
from itertools import pairwise

import pytest

from search.view.page import document
from tests.helpers.chromium import watched

pytestmark = pytest.mark.slow

CONTROLS = {"button", "link", "textbox", "checkbox", "combobox", "application", "region", "dialog", "image"}

# The least contrast of the texts that are seen, by WCAG's formula, with the worst of them. The charts are
# pictures to screen readers; their texts have the page's own colours.
CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((each) => each / 255)
    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
    .reduce((sum, each, k) => sum + each * [0.2126, 0.7152, 0.0722][k], 0);
  const over = (front, back) => {
    const share = front[3] ?? 1;
    return [0, 1, 2].map((k) => share * front[k] + (1 - share) * back[k]);
  };
  const ground = (each) => {
    const layers = [];
    for (let it = each; it; it = it.parentElement) layers.push(parts(getComputedStyle(it).backgroundColor));
    return layers.reverse().reduce((back, front) => over(front, back), [255, 255, 255]);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = [99, ''];
  while (texts.nextNode()) {
    const each = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !each.checkVisibility() ||
      each.closest('svg, script, .unseen, :disabled, noscript'))
      continue;
    const back = ground(each);
    const lights = [light(over(parts(getComputedStyle(each).color), back)), light(back)].sort();
    const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
    if (ratio < worst[0]) worst = [ratio, texts.currentNode.data.slice(0, 60)];
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def page(browser, value, tmp_path_factory):
    path = tmp_path_factory.mktemp("accessible") / "page.html"
    document.write(path, value, title="made up")
    with watched(browser, viewport={"width": 1280, "height": 900}) as kept:
        kept.page.goto(path.as_uri())
        kept.ready()
        yield kept.page
        assert kept.errors == []


def tree(page):
    """Role, name and properties of what the browser tells screen readers, in the page's order."""
    session = page.context.new_cdp_session(page)
    nodes = {node["nodeId"]: node for node in session.send("Accessibility.getFullAXTree")["nodes"]}

    def walk(node):
        if not node.get("ignored"):
            properties = {each["name"]: each["value"].get("value") for each in node.get("properties", ())}
            yield node["role"]["value"], node.get("name", {}).get("value", ""), properties
        for child in node.get("childIds", ()):
            yield from walk(nodes[child])

    root = next(node for node in nodes.values() if "parentId" not in node)
    return list(walk(root))


@pytest.mark.parametrize("opened", [False, True], ids=["run", "candidate"])
def test_screen_readers_get_names_headings_and_tables(page, opened):
    if opened:
        page.locator("#candidates button.link").first.click()
        page.wait_for_selector("#candidate:not([hidden]) .stack li")
    seen = tree(page)
    assert [
        (role, properties) for role, name, properties in seen if role in CONTROLS and not name.strip()
    ] == []
    levels = [properties["level"] for role, _, properties in seen if role == "heading"]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    roles = [role for role, _, _ in seen]
    for role in ("banner", "main", "navigation", "table", "columnheader", "rowheader"):
        assert role in roles, role
    charts = [name for role, name, _ in seen if role in ("application", "image")]
    assert any(re.match(r"Chart: \d+ candidates? on the frontier of \d+", name) for name in charts)
    assert any(re.match(r"Hypervolume: long reaches \d\.\d+", name) for name in charts)
    assert any(re.search(r"At the end: \w+ \d+%", name) for name in charts)
    assert {role for role, name, _ in seen if name.startswith("Candidate ")} >= (
        {"dialog"} if opened else set()
    )
    page.keyboard.press("Escape")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.locator("#candidates button.link").first.click()
    page.wait_for_selector("#candidate:not([hidden]) .stack li")
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, text
    page.keyboard.press("Escape")
    page.emulate_media(color_scheme="light")
