"""Words by which labels and sounds are recognised, and speech that looks like them. All lower-case."""

from __future__ import annotations


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ROLES = _set("""
    speaker spk int intv resp interviewer interviewee interrogator host cohost guest narrator moderator
    announcer reporter anchor presenter
    correspondent journalist caller operator agent customer client participant panelist respondent subject patient doctor nurse
    therapist counselor teacher student professor instructor pupil lawyer attorney judge witness defendant plaintiff prosecutor
    officer detective clerk bailiff chairman chairwoman chairperson facilitator translator interpreter researcher man woman boy
    girl male female child kid baby mother father mom mum dad son daughter husband wife brother sister grandma grandpa voice
    voiceover audience crowd all both everyone chorus unknown unidentified user assistant bot clerk waiter waitress driver
    passenger pilot soldier commander captain king queen servant employee manager boss director producer commentator
    sprecher sprecherin moderatorin interviewerin locuteur animateur journaliste entrevistador entrevistadora hablante locutor
    intervistatore ведущий ведущая диктор журналист 主持人 记者 記者 旁白 嘉宾 男 女 司会 聞き手 話し手 進行 화자 진행자 기자
""")
TITLES = _set("""
    mr mrs ms miss dr prof professor sir lady lord sen senator rep gov governor president judge justice officer sgt sergeant
    detective captain capt lt lieutenant col colonel gen general rev father sister brother king queen prince princess uncle aunt
""")

NOT_LABELS = _set("""
    note notes warning attention caution important fact facts myth tip tips hint ps fyi update updates breaking news reminder
    disclaimer example examples step part chapter act scene section title subject topic today tonight tomorrow yesterday now first
    second third finally next then also remember listen look see here there this that these those result results conclusion
    summary abstract introduction background overview answer question problem solution reason warning rule point lesson moral
    bottom line spoiler edit source sources credit credits quote advice verdict translation caveat exception goal plan option
    options bonus correction danger stop wait ok okay yes no well so but or because however remember think imagine consider
    guess breaking exclusive alert live date time place location address phone email price total score name age sex weather sports
    monday tuesday wednesday thursday friday saturday sunday ingredients instructions directions method contents definition
    corollary theorem proof lemma hypothesis objective purpose mission vision status agenda item figure table
    the a an is are was were be said says asked to of in on at for with from by it i you he she we they my your his her our their
    what when where who why how which if not do does did have has had will would can could should
""")
"""Words that stand before a colon in speech. A name that has one of them is no label."""

FIRST_NAMES = _set("""
    aaron adam alan albert alex alexander alice alison amanda amber amy andrea andrew angela ann anna anne anthony antonio arthur
    ashley barbara ben benjamin betty beverly bill bob bobby brandon brenda brian bruce bryan carl carlos carol caroline carolyn
    catherine charles charlie charlotte cheryl chris christian christina christine christopher cindy claire clara craig crystal
    cynthia daniel danny david deborah debra denise dennis diana diane donald donna doris dorothy douglas dylan edward eleanor
    elizabeth ellen emily emma eric ethan eugene eva evelyn fiona frances francis frank fred gabriel gary george gerald gloria
    gordon greg gregory hannah harold harry heather helen henry howard ian isabella jack jacob jacqueline jake james jane janet
    janice jason jean jeff jeffrey jennifer jenny jeremy jerry jesse jessica jim jimmy joan joe joel john johnny jonathan jordan
    jose joseph joshua joyce juan judith judy julia julian julie justin karen karl kate katherine kathleen kathryn kathy kelly
    ken kenneth kevin kim kimberly kyle larry laura lauren lawrence leo leon leonard linda lisa logan lori louis louise lucas
    lucy luis luke madison maria marie marilyn mark martha martin mary matt matthew max megan melissa michael michelle mike
    mohammed nancy natalie nathan nicholas nick nicole noah nora oliver olivia oscar pamela patricia patrick paul paula peter
    philip phillip rachel ralph randy raymond rebecca richard rick robert robin roger ronald rose roy russell ruth ryan sally sam
    samantha samuel sandra sara sarah scott sean sharon shirley simon sophia sophie stanley stephanie stephen steve steven susan
    tammy taylor ted teresa terry theodore theresa thomas tiffany tim timothy todd tom tony tyler victor victoria vincent
    virginia walter wayne wendy william zachary zoe
""")
"""Common given names of the English-speaking world: facts of a census."""

PARTICLES = _set("de van von der la and &")
"""Written small in names."""

SOUND_VERBS = _set("""
    laugh chuckle giggle snicker cackle sigh cough gasp sniff sniffle sneeze sob weep cry wail whimper scream shriek
    shout yell whisper murmur mutter mumble groan moan grunt growl snarl bark meow howl roar chirp squeak squeal snore
    yawn hiccup burp belch clap applaud cheer boo hum sing chant whistle knock ring beep buzz click tap slam creak
    crash bang thud rumble rustle crackle honk tick chime toll explode exhale inhale breathe pant swallow gulp chew
    slurp kiss whoop gag retch stammer stutter vocalize scoff tsk snort squawk quack moo bleat neigh hiss chatter
    splash gurgle patter blare
""")
"""What people and things do that is heard: "(sighs)", "(door slamming)"."""

SOUND_NOUNS = _set("""
    laughter applause music theme noise noises static silence pause inaudible unintelligible indistinct crosstalk
    chatter sighs gasps cheers footsteps thunder siren sirens gunshot gunshots gunfire explosion explosions beep beeps
    bleep bleeps groans laughs throat breath breaths audio sound sounds sfx ambience overlapping voiceover ovation
    vocalizing jingle feedback hubbub playing continues fades stops indistinctly softly quietly loudly muffled
    offscreen off-screen rires rire soupir soupirs musique applaudissements lacht lachen gelächter musik applaus seufzt
    hustet risas risa música aplausos suspira suspiros tose risate risata musica applausi sospira risos riso suspiro
    смех смеется смеётся музыка аплодисменты вздыхает кашель
    笑 笑声 音乐 掌声 咳嗽 叹气 笑聲 音樂 嘆氣 拍手 音楽 咳 ため息 拍手喝采 웃음 음악 박수 한숨
""")
"""Sounds, and how they are, in the languages that an engine knows: the last word of "(dramatic music)", "(muffled)"."""

SOUND_ENDS = _set("open close start stop approach")
"""Verbs of what is heard, but of other things too, so that they come last: "(door opens)", "(engine starting)"."""

SOUND_ROOTS = _set("laugh chuckle giggle sigh cough gasp sob scream cheer applaud clap groan")
"""Verbs of several: "(both laugh)"."""

SOUND_OPENERS = _set("speaking speaks clears clearing continues plays")
"""Their first words, besides the sounds themselves: "(speaking Spanish)"."""

LANGUAGES = _set("english spanish french german italian portuguese russian chinese mandarin japanese korean arabic hindi")

SAID = _set("""
    i me my we us our you your said says say think thinks know knows was were is are am be been have has had do does
    did if when because that which who whose than not can could will would should
""")
"""Words of sentences: brackets that have one are said."""

NUMBERED = _set("vol fig figs sec art chap ver para nos app act apt tel ext")
"""Abbreviations before a number: "vol.12" has no footnote."""

COUNTS = _set("one two three four five six")

EXPONENT_BASES = _set("mm cm dm km hm in ft yd mi nm um ha rad sin cos tan log chi mol sec min")
"""Units and functions: a superscript after them is an exponent."""

INLINE_TAGS = _set("""
    i b u s c em strong strike del ins font span a mark small big sub sup tt code q cite abbr bdi bdo ruby rb rp rt wbr
""")
BREAKING_TAGS = _set("""
    br p div li ul ol tr h1 h2 h3 h4 h5 h6 hr body html head tt sami sync blockquote section article
""")
OTHER_TAGS = _set("v lang td th table title speak sentence prosody break emphasis par seg img input")
"""Tags of HTML, WebVTT, TTML, SAMI and SSML: within words, ends of lines, and the others."""
