"""QGIS styles, so that polygons and rasters open in their colours with no action by the user."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import quoteattr

# Yellow to dark red: from barely above the threshold to certain.
RAMP = ((255, 217, 71), (253, 174, 54), (248, 124, 40), (227, 59, 30), (158, 1, 31))
DRAWN = (0, 112, 192)  # by hand, without a confidence
DARK, LIGHT = (40, 40, 40), (255, 255, 255)
SPLIT_COLOURS = {"train": (0, 114, 178), "val": (230, 159, 0), "test": (204, 0, 120)}
LANDSLIDE_COLOUR, IGNORED_COLOUR = (227, 59, 30), (150, 150, 150)

MASK_COLOURS = {0: (236, 236, 236, 255), 1: (*LANDSLIDE_COLOUR, 255), 255: (0, 0, 0, 0)}

# The date in files that want one: the same results are then the same bytes.
TIMESTAMP = "2000-01-01T00:00:00.000Z"

_VERSION = "3.22.0"

# NULL has a sign of its own in QGIS's lists.
_REVIEW = """<fieldConfiguration><field name="review"><editWidget type="ValueMap"><config>
<Option type="Map"><Option type="List" name="map">
<Option type="Map"><Option type="QString" name="not looked at"
 value="{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"/></Option>
<Option type="Map"><Option type="QString" name="yes, a landslide" value="yes"/></Option>
<Option type="Map"><Option type="QString" name="no" value="no"/></Option>
</Option></Option></config></editWidget></field></fieldConfiguration>
<defaults><default field="review" applyOnUpdate="0"
 expression="if(&quot;confidence&quot; is null, 'yes', null)"/></defaults>
<previewExpression>"id"</previewExpression>
"""

_STYLE_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    f_table_catalog TEXT(256),
    f_table_schema TEXT(256),
    f_table_name TEXT(256),
    f_geometry_column TEXT(256),
    styleName TEXT(30),
    styleQML TEXT,
    styleSLD TEXT,
    useAsDefault BOOLEAN,
    description TEXT,
    owner TEXT(30),
    ui TEXT(30),
    update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""


def polygon_qml(threshold: float) -> str:
    """Style of the polygon layer: five classes of `confidence` from the threshold to 1, and a band
    around those whose `review` is "yes". Those with "no" are dashed lines without a class.

    A polygon that was drawn by hand has no confidence, and a class of its own. `review` is a choice
    in forms, and "yes" for what is drawn (but not for the halves of a polygon that is split, which
    nobody has judged).
    """
    low = min(max(threshold, 0.0), 0.95)
    edges = [low + (1 - low) * step / len(RAMP) for step in range(len(RAMP) + 1)]
    kept = "coalesce(\"review\", '') <> 'no'"
    rules = []
    for number, (lower, upper) in enumerate(pairwise(edges)):
        # The first and the last class take what rounding has put beyond them.
        ends = [f'"confidence" >= {lower:.6f}'] if number > 0 else []
        ends += [f'"confidence" < {upper:.6f}'] if number < len(RAMP) - 1 else []
        label = f"{lower:.0%} – {upper:.0%}".replace("%", " %")
        rules.append((label, " and ".join((*ends, kept))))
    rules += [
        ("drawn by hand", f'"confidence" is null and {kept}'),
        ("reviewed: yes", "\"review\" = 'yes'"),
        ("reviewed: no", "\"review\" = 'no'"),
    ]
    entries = "".join(
        f'<rule key="{{{number}}}" symbol="{number}" label={quoteattr(label)} '
        f"filter={quoteattr(condition)}/>"
        for number, (label, condition) in enumerate(rules)
    )
    symbols = [
        fill_symbol(number, fill_layer(colour, opacity=70, width=0.5, order=1))
        for number, colour in enumerate((*RAMP, DRAWN))
    ]
    # Dark beside light is seen on any ground.
    band = [fill_layer(DARK, 0, 1.9, filled=False), fill_layer(LIGHT, 0, 1.5, filled=False)]
    dashes = [
        fill_layer(LIGHT, 0, 0.6, filled=False),
        fill_layer(DARK, 0, 0.4, filled=False, line="dash"),
    ]
    symbols += [fill_symbol(len(symbols), *band), fill_symbol(len(symbols) + 1, *dashes)]
    return vector_qml(
        'type="RuleRenderer"',
        f'<rules key="{{rules}}">{entries}</rules>',
        symbols,
        _REVIEW,
        "Symbology|Fields|Forms",
    )


def split_qml() -> str:
    """Style of the footprints of tiles: outlines, a colour for each split."""
    categories = "".join(
        f'<category value="{split}" symbol="{index}" label="{split}" render="true"/>'
        for index, split in enumerate(SPLIT_COLOURS)
    )
    return vector_qml(
        'type="categorizedSymbol" attr="split"',
        f"<categories>{categories}</categories>",
        [
            fill_symbol(index, fill_layer(colour, opacity=0, width=0.5, filled=False))
            for index, colour in enumerate(SPLIT_COLOURS.values())
        ],
    )


def vector_qml(
    kind: str,
    classes: str,
    symbols: Sequence[str],
    forms: str = "",
    categories: str = "Symbology",
) -> str:
    """Style of a polygon layer.

    Args:
        kind: attributes of the renderer, its type and what it goes by.
        classes: its ranges or categories, as XML.
        symbols: of `fill_symbol`, to which the classes point.
        forms: what else is in the document, as XML.
        categories: what there is in the document, in QGIS's words.
    """
    return _document(
        f'<renderer-v2 {kind} symbollevels="0" enableorderby="0" forceraster="0">\n'
        f"{classes}\n<symbols>{''.join(symbols)}</symbols>\n"
        f"</renderer-v2>\n<layerGeometryType>2</layerGeometryType>\n{forms}",
        categories,
    )


def fill_symbol(name: int, *layers: str) -> str:
    """A polygon symbol of QGIS, as XML.

    Args:
        name: number, to which classes point.
        layers: of `fill_layer`, the lowest first.
    """
    return (
        f'<symbol type="fill" name="{name}" alpha="1" clip_to_extent="1" force_rhr="0">'
        f"{''.join(layers)}</symbol>"
    )


def fill_layer(
    colour: tuple[int, int, int],
    opacity: int,
    width: float,
    filled: bool = True,
    line: str = "solid",
    order: int = 0,
) -> str:
    """A layer of a polygon symbol, as XML.

    Args:
        colour: of outline and inside, 0..255.
        opacity: of the inside, 0..255.
        width: of the outline, millimetres.
        filled: whether the inside is painted at all.
        line: the outline's style, in QGIS's words.
        order: of several symbols that one polygon has, those of a higher order lie above.
    """
    rgb = ",".join(map(str, colour))
    properties = {
        "color": f"{rgb},{opacity}",
        "outline_color": f"{rgb},255",
        "outline_style": line,
        "outline_width": f"{width:g}",
        "outline_width_unit": "MM",
        "joinstyle": "round",
        "style": "solid" if filled else "no",
    }
    # Old and new QGIS read these; `<Option>`, which new ones write, is unknown to old ones.
    props = "".join(f'<prop k="{key}" v="{value}"/>' for key, value in properties.items())
    return f'<layer class="SimpleFill" enabled="1" locked="0" pass="{order}">{props}</layer>'


def mask_qml(ignored: bool = False) -> str:
    """Style of a mask: landslides in one colour, everything else transparent.

    Args:
        ignored: whether 255 means pixels that do not count, which are grey then.
    """
    entries = [(0, "no landslide", (236, 236, 236), 0), (1, "landslide", LANDSLIDE_COLOUR, 255)]
    if ignored:
        entries.append((255, "does not count", IGNORED_COLOUR, 255))
    palette = "".join(
        f'<paletteEntry value="{value}" label="{label}" color="{_hex(colour)}" alpha="{alpha}"/>'
        for value, label, colour, alpha in entries
    )
    return _raster_qml(
        '<rasterrenderer type="paletted" band="1" opacity="0.6" alphaBand="-1">'
        f"<colorPalette>{palette}</colorPalette></rasterrenderer>"
    )


def probability_qml() -> str:
    """Style of a probability raster: percent in colours, transparent at 0."""
    low = (255, 255, 204)
    stops = [(0, low, 0), (10, low, 60)]
    stops += [(20 * (n + 1), colour, 130 + 25 * n) for n, colour in enumerate(RAMP)]
    items = "".join(
        f'<item value="{value}" label="{value} %" color="{_hex(colour)}" alpha="{alpha}"/>'
        for value, colour, alpha in stops
    )
    return _raster_qml(
        '<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" '
        'classificationMin="0" classificationMax="100"><rastershader>'
        '<colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" '
        f'minimumValue="0" maximumValue="100">{items}</colorrampshader>'
        "</rastershader></rasterrenderer>"
    )


def _raster_qml(renderer: str) -> str:
    return _document(f"<pipe>{renderer}</pipe>\n<blendMode>0</blendMode>\n")


def _document(content: str, categories: str = "Symbology") -> str:
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        f'<qgis version="{_VERSION}" styleCategories="{categories}">\n{content}</qgis>\n'
    )


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def add_default_style(
    geopackage: Path,
    layer: str,
    geometry: str,
    qml: str,
    name: str,
    description: str = "lsmap: mean probability of each landslide",
) -> None:
    """Put `qml` into a new GeoPackage as the default style of `layer` (QGIS ≥ 3 loads it)."""
    unlocked = f"{geopackage.absolute().as_uri()}?nolock=1"  # see `gdal.new_layer`
    with closing(sqlite3.connect(unlocked, uri=True)) as database, database:
        database.execute(_STYLE_TABLE)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, "
            "last_change, srs_id) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?, 0)",
            (TIMESTAMP,),
        )
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
            "update_time) VALUES ('', '', ?, ?, ?, ?, '', 1, "
            "?, '', ?)",
            (layer, geometry, name, qml, description, TIMESTAMP),
        )
