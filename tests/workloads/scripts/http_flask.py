"""A Flask application: / and /items/NUMBER answer 200, everything else 404."""

from flask import Flask

app = Flask(__name__)


@app.route("/")
@app.route("/items/<int:number>")
def page(number=0):
    return "a small page\n"
