"""Units of measure: what is said for their signs, in the singular and the plural."""

from __future__ import annotations

from aligner_svc.text.english.numbers import Words

# Case matters: MB is not mb. The noun before the bar takes the plural.
_TABLE = """
km: kilometer
m: meter
cm: centimeter
mm: millimeter
μm um: micrometer
nm: nanometer
mi: mile
yd yds: yard
ft: foot
m^2: square meter
km^2: square kilometer
m^3: cubic meter
cm^3 cc: cubic centimeter
kg: kilogram
g: gram
mg: milligram
μg mcg: microgram
lb lbs: pound
oz: ounce
l L: liter
ml mL: milliliter
cl cL: centiliter
h hr hrs: hour
min mins: minute
s sec secs: second
ms: millisecond
km/h kph kmh: kilometer | per hour
mph mi/h: mile | per hour
m/s: meter | per second
rpm: revolution | per minute
kbps: kilobit | per second
Mbps: megabit | per second
Gbps: gigabit | per second
B: byte
kB KB: kilobyte
MB: megabyte
GB: gigabyte
TB: terabyte
Hz: hertz
kHz: kilohertz
MHz: megahertz
GHz: gigahertz
W: watt
kW: kilowatt
MW: megawatt
GW: gigawatt
kWh: kilowatt hour
V: volt
mV: millivolt
mA: milliamp
dB: decibel
kJ: kilojoule
cal: calorie
kcal: kilocalorie
°: degree
°C: degree | celsius
°F: degree | fahrenheit
%: percent
"""


def _read_table() -> dict[str, tuple[Words, Words]]:
    table: dict[str, tuple[Words, Words]] = {}
    for line in _TABLE.strip().splitlines():
        signs, _, name = line.partition(": ")
        noun, _, rest = name.partition(" | ")
        many = "feet" if noun == "foot" else noun if noun.endswith(("hertz", "percent")) else noun + "s"
        for sign in signs.split():
            table[sign] = (*noun.split(), *rest.split()), (*many.split(), *rest.split())
    return table


UNITS = _read_table()
"""Sign to its words for exactly one and for any other number."""
