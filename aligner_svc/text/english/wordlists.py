"""Lists of English words that the rules use. All lower-case."""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


INITIALISMS = _set("""
    usa uk eu un uae ussr fbi cia nsa irs fda cdc epa nih nyu ucla mit usc usda nypd lapd nba nfl nhl mlb ncaa ufc ioc
    abc nbc bbc cbs cnn npr pbs hbo ibm amd api cpu gpu ssd usb url html http https ceo cfo cto coo hr pr ai ml tv dvd
    cd dj mc vip atm gps suv ufo hiv dna rna iq ok rsvp diy faq fyi aka eta rip ira gdp imf wto naacp aclu ymca ieee
    unhcr aarp aaa aba ama apa osu lsu asu ios isp aol nyc dc gpa gmo ivf ptsd adhd oecd eeoc ada als asa ats eec epo erp esa
    esp eta gao iou lax mba mia mou mri nec ngo oas ohs ota rca roi rpi sap sec sla soc tia ucsd ucsf uaw usaf usmc uva
    espn iaea ilo imo roc rom
""")
"""Always spelled. Those that are also everyday words in capitals are left out."""

ACRONYMS = _set("nasa nato opec unesco unicef aids covid sars fema osha nafta ikea radar laser scuba gif jpeg captcha")
"""Read as words, although the rules would spell some of them."""

SHORT_WORDS = _set("""
    ah am an as at ax be by do go ha he hi ho if in is me my no of oh on or ox so to up we ye act add ago aid
    aim air all and any are arm art ask ate bad bag ban bar bat bed bee bet big bit boo box boy bug bus but buy can cap
    car cat cow cry cup cut dad day did die dig dog dot dry due ear eat egg end eye fan far fat few fit fix fly for fox
    fun gas get god got gun guy had has hat her hey him his hit hot how huh ice ill its job joy key kid law lay led leg
    let lie lot low mad man may men met mom mix new nor not now nut odd off oil old one our out own pay pen pet pin put
    ran raw red run sad sat saw say sea see set sex she sir sit six sky son sun tax tea ten the tie tip toe too top toy
    try two use van war was way wet who why win won wow yes yet you zoo brr hmm mmm nth psst shh
""")
"""Everyday words of two and three letters and sounds without a vowel, which are capitals for emphasis."""

BEFORE_INITIALISM = {"us": _set("the a"), "it": _set("the an our their your corporate"), "who": _set("the")}
"""What is before the country, the trade and the organisation, and not before the pronouns."""

AFTER_INITIALISM = {
    "us": _set("army bank congress constitution dollar dollars economy embassy government military navy senate state"),
    "it": _set("department industry jobs manager managers people sector security services staff support systems team"),
    "who": _set(""),
}
"""What is after them, likewise."""

BEFORE_US = _set("""
    against all among ask asked behind between both bring brought for gave get give given gives got help helped helps
    join keep kept let like made make makes of send sent show showed take taught teach tell than to told took with
""")
AFTER_US = _set("""
    a about again all an and are as at away back both but by first for from go here how if in into is it know not now of
    off on or our out some so that the then there this to too together up was were what when where who why with
""")
"""What is before or after the pronoun "us", which is then in capitals for stress."""

DROPPED_G = _set("""
    bein callin comin cryin doin drinkin drivin eatin feelin fightin gettin givin goin havin holdin keepin kickin
    laughin leavin lettin livin lookin losin lovin makin mornin movin nothin playin puttin rockin rollin runnin sayin
    seein singin sittin smokin somethin standin stayin takin talkin tellin thinkin tryin turnin waitin walkin watchin
    wonderin workin
""")
"""Read as the form in -ing, which every dictionary has and which sounds almost the same."""

SENTENCE_OPENERS = _set("the a an he she it we they i you and but or so then this that in on at if when there his her")
"""Capitalised at the start of a sentence, not because they are names."""

COUNTED = _set("""
    war chapter part volume vol act scene book section phase type level title article class stage grade episode season
    appendix table figure bowl mark group tier category union
""")
"""What a Roman numeral numbers: "World War II", "Chapter IV"."""

REGNAL = _set("""
    henry louis charles george elizabeth edward richard william james john paul pius benedict gregory leo clement
    innocent alexander catherine peter nicholas napoleon philip ferdinand frederick wilhelm otto francis joseph mary
    ramses ptolemy xerxes darius harald gustav carl christian leopold alfonso pedro boniface urban sixtus julius victor
    ivan margaret
""")
"""Names that run in dynasties: "Henry VIII" is "Henry the eighth"."""

_MONTHS = "january february march april may june july august september october november december"
MONTHS = tuple(_MONTHS.split())
"""In the order of the year."""

_GREEK = """
    alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau upsilon phi
    chi psi omega
"""
GREEK = tuple(_GREEK.split())
"""From U+03B1 on; sigma twice, for its final form."""
