"""`report.html`: one page that shows a data folder, or two side by side, and every episode as a conversation.

folder.py          what lies in a data folder -> `RunData`
tally.py           counts and rates of it
charts.py          the same as SVG, in colours that follow light and dark
conversations.py   episodes -> compressed chunks that the page inflates on demand
page.py            all together -> one HTML file that loads nothing
"""
